"""Ranks of a training as threads of a test, or as processes that only meet."""

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch.distributed as dist

from duplus_nnunet.errors import DataError
from duplus_nnunet.nodes.peers import Peers, meet
from duplus_nnunet.nodes.place import TORCHRUN, Place


def run_ranks(world: int, act: Callable[[Peers], Any], timeout: float = 10.0) -> list[Any]:
    """Let ranks act at the same time, each in a thread; return what each returned, or the error that it raised."""
    store = dist.HashStore()  # type: ignore[attr-defined]

    def run(rank: int) -> Any:
        try:
            return act(Peers(store, Place(TORCHRUN, rank, world, rank, "localhost", 29500), timeout))
        except Exception as error:
            return error

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, range(world)))


def take_part(rank: int, port: int, way: str) -> None:
    """Meet the other rank; rank 1 then ends, and rank 0 waits for it.

    Args:
        rank: 0 or 1.
        port: Where they meet.
        way: How rank 1 ends: "error", while rank 0 does something else; or "killed", while rank 0 is in a collective.
    """
    place = Place(TORCHRUN, rank, 2, rank, "localhost", port)
    with meet(place, 60.0) as (peers, store):
        peers.exchange("ready", True)
        if way == "error" and rank == 1:
            raise DataError("the disk is full")
        if way == "error":
            time.sleep(600)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()


if __name__ == "__main__":
    take_part(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
