"""Ranks of a training as threads of a test, or as processes that only meet."""

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


def take_part(rank: int, port: int) -> None:
    """Meet the other rank; rank 1 then fails while rank 0 waits for what never comes, as in a collective."""
    place = Place(TORCHRUN, rank, 2, rank, "localhost", port)
    with meet(place, 60.0) as (peers, _):
        peers.exchange("ready", True)
        if rank == 1:
            raise DataError("the disk is full")
        time.sleep(600)


if __name__ == "__main__":
    take_part(int(sys.argv[1]), int(sys.argv[2]))
