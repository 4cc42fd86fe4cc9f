"""Processes that compare values, wait for each other, and end together."""

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

from duplus_nnunet.errors import HostError
from duplus_nnunet.nodes.peers import Failure, Peers, begin_session
from duplus_nnunet.nodes.place import TORCHRUN, Place

from .ranks import run_ranks


def test_values_are_exchanged_by_rank() -> None:
    assert run_ranks(3, lambda peers: peers.exchange("x", {"rank": peers.place.rank})) == 3 * [
        [{"rank": rank} for rank in range(3)]
    ]


def test_a_process_that_does_not_answer_is_named() -> None:
    def act(peers: Peers) -> object:
        return peers.exchange("x", 1) if peers.place.rank == 0 else None

    error, _ = run_ranks(2, act, timeout=0.2)
    assert isinstance(error, HostError)
    assert "'x/1'" in str(error)


def test_the_first_failure_is_that_of_all() -> None:
    def act(peers: Peers) -> list[Failure | None]:
        if peers.place.rank:
            while peers.find_failure() is None:
                time.sleep(0.01)
        return [peers.report(f"failure {peers.place.rank}"), peers.find_failure()]

    seen = [failure for both in run_ranks(2, act) for failure in both]
    assert {failure.rank for failure in seen} == {0}
    assert all("failure 0" in failure.text for failure in seen)


def test_a_failure_ends_the_wait_for_a_value() -> None:
    def act(peers: Peers) -> object:
        return peers.report("no disk") if peers.place.rank else peers.receive("never")

    error, _ = run_ranks(2, act)
    assert isinstance(error, HostError)
    assert "rank 1 of 2" in str(error)
    assert "no disk" in str(error)


def test_each_start_of_a_training_has_a_name_of_its_own() -> None:
    """The store holds what an earlier start wrote; rank 0 of the new one may come before or after the others."""
    store = dist.HashStore()  # type: ignore[attr-defined]

    def start(late: int) -> set[str]:
        def begin(rank: int) -> str:
            time.sleep(0.3 if rank == late else 0.0)
            return begin_session(store, Place(TORCHRUN, rank, 3, rank, "localhost", 29500), 10.0)

        with ThreadPoolExecutor(3) as pool:
            return set(pool.map(begin, range(3)))

    names = [start(late) for late in range(3)]
    assert [len(name) for name in names] == [1, 1, 1]
    assert len(set.union(*names)) == 3


def test_processes_that_are_missing_are_named() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    with pytest.raises(HostError, match=r"rank\(s\) 1, 2"):
        begin_session(store, Place(TORCHRUN, 0, 3, 0, "localhost", 29500), 0.2)


def test_all_leave_after_rank_0_has_finished() -> None:
    def act(peers: Peers) -> float:
        time.sleep(0.0 if peers.place.rank else 0.3)
        before = time.monotonic()
        peers.finish()
        return before if peers.place.rank == 0 else time.monotonic()

    finished, left = run_ranks(2, act)
    assert left >= finished


def end_rank_1(way: str) -> list[tuple[int, str]]:
    """Start two processes of which rank 1 ends; return exit code and standard error of each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    script = str(Path(__file__).with_name("ranks.py"))
    own = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, script, str(rank), port, way], env=own, stderr=subprocess.PIPE, encoding="utf-8"
        )
        for rank in range(2)
    ]
    printed = [rank.communicate(timeout=120)[1] for rank in ranks]
    return [(rank.returncode, text) for rank, text in zip(ranks, printed, strict=True)]


def test_a_failure_ends_a_process_that_waits_for_something_else() -> None:
    for code, printed in end_rank_1("error"):
        assert code == 1
        assert "rank 1 of 2" in printed
        assert "the disk is full" in printed


def test_a_process_that_was_killed_ends_the_others_with_advice() -> None:
    (code, printed), (killed, _) = end_rank_1("killed")
    assert (code, killed) == (1, -signal.SIGKILL)
    assert "error: rank 0 of 2" in printed
    assert "--c" in printed
