"""Jobs are given to SLURM as an array; a stand-in for its programs takes them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from duplus_nnunet.errors import HostError
from duplus_nnunet.submission.resources import Resources
from duplus_nnunet.submission.sending import (
    ask_scheduler,
    list_devices,
    list_slurm_parameters,
    require_slurm,
    send,
    write_script,
)

pytest.importorskip("submitit")
from duplus_nnunet.submission.task import Order

BASH = "/bin/bash"


def read_options(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE))


def make_order(folder: Path, number: int = 0) -> Order:
    return Order(("python", "-c", ""), folder / "out", folder / f"task_{number}.json", 1, 0, 0, (), {})


def put_program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!{BASH}\n{text}\n")
    file.chmod(0o755)


def test_the_script_asks_for_what_was_said(tmp_path: Path) -> None:
    resources = Resources(
        "slurm", gpus=2, cpus=6, memory_gb=64, minutes=90, parallel=3, partition="gpu", account="lab",
        setup=("module load cuda",), slurm=(("qos", "high"), ("exclusive", "")),
    )  # fmt: skip
    script = write_script(5, resources, tmp_path / "jobs")
    options = read_options(script)
    expected = {
        "array": "0-4%3", "gpus-per-node": "2", "cpus-per-task": "12", "mem": "65536M", "time": "90",
        "partition": "gpu", "account": "lab", "qos": "high", "exclusive": "", "requeue": "",
        "nodes": "1", "ntasks-per-node": "1",
        "signal": "USR2@120",
    }  # fmt: skip
    assert {name: options.get(name) for name in expected} == expected
    assert script.index("module load cuda") < script.index("srun ")
    assert "--cpus-per-task 12" in script
    assert subprocess.run([BASH, "-n"], input=script, text=True, check=False).returncode == 0
    assert not (tmp_path / "jobs").exists()


def test_each_gpu_of_several_nodes_has_a_process(tmp_path: Path) -> None:
    options = read_options(write_script(1, Resources("slurm", gpus=4, nodes=2, cpus=6), tmp_path))
    names = ("nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node")
    assert [options[name] for name in names] == ["2", "4", "6", "4"]
    assert "array" not in options


def test_gpus_are_asked_for_once() -> None:
    assert "gpus_per_node" not in list_slurm_parameters(Resources("slurm", slurm=(("gres", "gpu:a100:1"),)))
    assert "gpus_per_node" not in list_slurm_parameters(Resources("slurm", gpus=0))
    assert list_slurm_parameters(Resources("slurm"))["gpus_per_node"] == 1


def test_an_array_is_sent_and_its_jobs_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    put_program(programs, "srun", "exit 0")
    put_program(programs, "sbatch", f'cat "$1" >> {tmp_path}/sent; echo Submitted batch job 4711')
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    require_slurm()
    folder = tmp_path / "jobs"
    assert send([make_order(tmp_path, number) for number in range(3)], Resources("slurm"), folder) == [
        "4711_0", "4711_1", "4711_2"
    ]  # fmt: skip
    assert read_options((tmp_path / "sent").read_text())["array"] == "0-2%3"
    assert sorted(file.name for file in folder.glob("*.pkl")) == [f"4711_{number}_submitted.pkl" for number in range(3)]


def test_a_refusal_of_the_scheduler_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path, "srun", "exit 0")
    put_program(tmp_path, "sbatch", "echo invalid partition >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(HostError, match="invalid partition"):
        send([make_order(tmp_path)], Resources("slurm"), tmp_path / "jobs")


def test_without_slurm_nothing_can_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="--dry-run"):
        require_slurm()
    assert ask_scheduler("slurm", tmp_path, "4711_0") == ""


def test_the_scheduler_is_asked_for_the_state_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = r"JobID|State|NodeList\n4712_0|OUT_OF_MEMORY|gpu1\n4712_[1-2]|PENDING|\n"
    put_program(tmp_path, "sacct", f'printf "{lines}"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    states = [ask_scheduler("slurm", tmp_path, f"4712_{number}") for number in range(3)]
    assert states == ["OUT_OF_MEMORY", "PENDING", "PENDING"]
    assert ask_scheduler("local", tmp_path, "4712_0") == ""


@pytest.mark.parametrize(("value", "devices"), [("0,3", ("0", "3")), ("", ()), (" 1 , ", ("1",))])
def test_gpus_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch, value: str, devices: Any) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert list_devices() == devices
