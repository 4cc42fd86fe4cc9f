"""What a trainer does otherwise in a process group, and how its workers end."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from duplus_nnunet.errors import HostError
from duplus_nnunet.trainers import distributed, seeding
from duplus_nnunet.trainers.distributed import DistributedTrainer, digest_weights


def make_trainer(batch_size: int) -> Any:
    """A trainer of several processes that knows no more than its batch."""
    trainer: Any = DistributedTrainer.__new__(DistributedTrainer)
    trainer.is_ddp, trainer.configuration_name = True, "3d_fullres"
    trainer.configuration_manager = SimpleNamespace(batch_size=batch_size)
    trainer.oversample_foreground_percent = 0.33
    return trainer


def test_a_batch_is_divided_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    sizes = []
    for rank in range(4):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        trainer = make_trainer(6)
        trainer.print_to_log_file = lambda *_, **__: None
        trainer._set_batch_size_and_oversample()
        sizes.append(trainer.batch_size)
    assert sizes == [2, 2, 1, 1]


def test_a_batch_that_cannot_be_divided_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    with pytest.raises(HostError, match=r"is 2, and 4 processes"):
        make_trainer(2)._set_batch_size_and_oversample()


def test_json_files_are_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "splits_final.json"
    distributed._save_json([{"train": ["a"], "val": ["b"]}], str(file))
    assert json.loads(file.read_text()) == [{"train": ["a"], "val": ["b"]}]
    assert list(tmp_path.iterdir()) == [file]


def test_a_digest_tells_weights_apart_to_the_bit() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))  # which counts its batches in a tensor without axes
    before = digest_weights(network)
    assert digest_weights(network) == before
    with torch.no_grad():
        network[0].weight[0, 0] = torch.nextafter(network[0].weight[0, 0], torch.tensor(9.0))
    assert digest_weights(network) != before


def serve(pipe: Any) -> None:
    """Start a worker as a training does, tell its process number, and wait to be killed."""
    worker = multiprocessing.get_context("fork").Process(target=wait_for_parent, daemon=True)
    worker.start()
    pipe.send(worker.pid)
    time.sleep(600)


def wait_for_parent() -> None:
    seeding.end_with_parent()
    time.sleep(600)


def is_alive(process: int) -> bool:
    """Whether a process runs; a zombie, which has ended, does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of processes from /proc")
def test_a_worker_ends_with_a_training_that_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "_LOOK_S", 0.05)
    ours, theirs = multiprocessing.Pipe()
    training = multiprocessing.get_context("fork").Process(target=serve, args=(theirs,))
    training.start()
    worker = ours.recv()
    assert is_alive(worker)
    assert training.pid is not None
    os.kill(training.pid, signal.SIGKILL)
    training.join()
    end = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(worker)
