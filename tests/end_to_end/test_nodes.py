"""Trainings by two processes, with gloo on CPUs: two "nodes" of one process each, and one node of two processes."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from .conftest import ALONE, Project, read_environment

# Rank 1 has no annotated target in training, and is killed once at the end of the first epoch.
TRAINER = """
import os
import signal
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from duplus_nnunet.trainers import DuPLUSTrainer
from duplus_nnunet.trainers.distributed import digest_weights


class SpreadTrainer(DuPLUSTrainer):
    def note(self, name, text):
        with Path(os.environ["OUT"], f"{name}_{self.local_rank}.txt").open("a") as file:
            file.write(f"{text}\\n")

    def _bind_batch(self, batch, training):
        chosen = super()._bind_batch(batch, training)
        if training and self.local_rank == 1:
            chosen = replace(chosen, annotated=torch.zeros_like(chosen.annotated))
            self._target_loss.select(chosen.rows, chosen.annotated)
        return chosen

    def train_step(self, batch):
        step = super().train_step(batch)
        self.note("batches", f"{batch['keys'][0]} {float(batch['data'].sum())} {float(step['loss'])}")
        return step

    def on_epoch_end(self):
        super().on_epoch_end()
        self.note("weights", digest_weights(self.network))
        dist.barrier()
        if self.local_rank == 1 and os.environ.get("KILL") and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    def perform_actual_validation(self, save_probabilities=False):
        if os.environ.get("VALIDATE"):
            super().perform_actual_validation(save_probabilities)
"""
WORDS = ("998", "3d_fullres", "0", "-tr", "SpreadTrainer", "-p", "DuPLUSPlans", "-device", "cpu", "--c")
TIMEOUT_S = 600


@dataclass(frozen=True)
class Spread:
    """A planned dataset, and trainings of it by several processes."""

    project: Project
    out: Path

    @property
    def fold(self) -> Path:
        return self.project.model.with_name("SpreadTrainer__DuPLUSPlans__3d_fullres") / "fold_0"

    def start(self, options: list[str], *words: str, **variables: str) -> "subprocess.Popen[str]":
        """Start torchrun, which starts the processes of one node."""
        folders = {f"nnUNet_{name}": str(self.project.folder / name) for name in ("raw", "preprocessed", "results")}
        own = {"OUT": str(self.out), "nnUNet_extTrainer": str(self.out), "GLOO_SOCKET_IFNAME": "lo"}
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, "-m", "duplus_nnunet.train", *words],
            env={**read_environment(), **folders, **ALONE, **own, **variables}, cwd=self.out, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def read(self, name: str, rank: int) -> list[str]:
        return (self.out / f"{name}_{rank}.txt").read_text().splitlines()


def end(process: "subprocess.Popen[str]") -> str:
    """Wait for a process that has to succeed; return what it printed."""
    printed, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, printed[-4000:]
    return printed


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def join_nodes(port: int, restarts: int) -> list[str]:
    return [
        *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"),
        *("--rdzv-endpoint", f"localhost:{port}", "--local-addr", "localhost", "--max-restarts", str(restarts)),
    ]


def copy(project: Project, folder: Path) -> Spread:
    shutil.copytree(project.folder, folder / "project", ignore=shutil.ignore_patterns("results"))
    out = folder / "out"
    out.mkdir()
    (splits,) = (folder / "project" / "preprocessed").glob("*/splits_final.json")
    cases = sorted(case for part in json.loads(splits.read_text())[0].values() for case in part)
    splits.write_text(json.dumps([{"train": cases[:3], "val": cases[3:]}]))
    (out / "spread_trainer.py").write_text(TRAINER)
    return Spread(Project(folder / "project"), out)


@pytest.fixture(scope="module")
def whole(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Spread:
    """A training by one node of two processes, without an interruption, and with its validation."""
    spread = copy(project, tmp_path_factory.mktemp("whole"))
    end(spread.start(["--standalone", "--nproc-per-node", "2"], *WORDS, VALIDATE="1"))
    return spread


@pytest.fixture(scope="module")
def resumed(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Spread:
    """The same by two nodes, of which one is killed after the first epoch; torchrun starts both again."""
    spread = copy(project, tmp_path_factory.mktemp("resumed"))
    options = join_nodes(find_port(), 1)
    nodes = [spread.start(options, *WORDS, KILL="1") for _ in range(2)]
    for node in nodes:
        end(node)
    return spread


def test_all_ranks_have_equal_weights(whole: Spread) -> None:
    first, second = (whole.read("weights", rank) for rank in range(2))
    assert first == second
    assert len(set(first)) == 2


def test_ranks_draw_different_cases_of_their_share_of_the_batch(whole: Spread) -> None:
    first, second = (whole.read("batches", rank) for rank in range(2))
    assert len(first) == len(second) == 4
    assert not set(first) & set(second)


def test_a_rank_without_annotated_targets_has_no_loss(whole: Spread) -> None:
    assert {float(line.split()[-1]) for line in whole.read("batches", 1)} == {0.0}
    assert 0.0 not in {float(line.split()[-1]) for line in whole.read("batches", 0)}


def test_rank_0_writes_files_once_and_scores_the_cases_of_all_ranks(whole: Spread) -> None:
    assert sorted(file.name for file in whole.fold.glob("checkpoint_*")) == [
        "checkpoint_best.pth",
        "checkpoint_final.pth",
    ]
    (log,) = whole.fold.glob("training_log_*.txt")
    assert log.read_text().count("predicting train_") == 1
    scored = json.loads((whole.fold / "validation" / "summary.json").read_text())["metric_per_case"]
    assert [Path(case["prediction_file"]).name.split(".")[0] for case in scored] == ["train_003", "train_004"]


def test_a_training_over_two_nodes_continues_to_the_bit_after_one_was_killed(whole: Spread, resumed: Spread) -> None:
    assert [resumed.read("batches", rank) for rank in range(2)] == [whole.read("batches", rank) for rank in range(2)]
    weights = [torch.load(each.fold / "checkpoint_final.pth")["network_weights"] for each in (whole, resumed)]
    assert [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])] == []
    assert len(list(resumed.fold.glob("training_log_*.txt"))) == 2


def test_nodes_with_different_arguments_end_with_the_reason(resumed: Spread) -> None:
    options = join_nodes(find_port(), 0)
    other = [word.replace("0", "1") if word == "0" else word for word in WORDS]
    nodes = [resumed.start(options, *words) for words in (WORDS, other)]
    printed = [node.communicate(timeout=TIMEOUT_S)[0] for node in nodes]
    assert 0 not in [node.returncode for node in nodes]
    # torchrun of one node may end that of the other before it has printed the same.
    assert any("different arguments: fold" in text for text in printed)
