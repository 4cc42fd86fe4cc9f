"""Seeds a training: initial weights, batches and prompts depend on `settings.seed` and on their own number alone.

Batches are seeded one by one, not by worker process, and arrive in order. So they are the same with any number of
workers, and a training that was interrupted continues with the batches that it would have had.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

# What is drawn; numbers of the same thing never depend on how many of another were drawn.
WEIGHTS, TRAINING, VALIDATION, PROMPTS, DROPOUT = range(5)
# nnU-Net's folds are numbered from 0, or named "all".
_ALL = 1 << 16
# Seconds between two looks of a worker at whether the training has ended.
_LOOK_S = 2.0


@dataclass(frozen=True)
class Seeds:
    """The random numbers of one training.

    Attributes:
        seed: `settings.seed`, 0 or more.
        fold: Fold, a number or "all"; folds start from different weights.
        rank: Process of a training with several; each draws other batches.
    """

    seed: int
    fold: int | str
    rank: int = 0

    def sequence(self, purpose: int, number: int = 0) -> np.random.SeedSequence:
        """Return the seed of what is drawn for a purpose, such as PROMPTS, and its number, such as the iteration."""
        fold = self.fold if isinstance(self.fold, int) else _ALL
        rank = 0 if purpose == WEIGHTS else self.rank
        return np.random.SeedSequence([self.seed, fold, rank, purpose, number])

    def draw(self, purpose: int, number: int = 0) -> np.random.Generator:
        """Return a generator of random numbers for a purpose and number."""
        return np.random.default_rng(self.sequence(purpose, number))

    def seed_all(self, purpose: int, number: int = 0) -> None:
        """Seed the global generators of Python, NumPy and torch, which nnU-Net draws from."""
        words = [int(word) for word in self.sequence(purpose, number).generate_state(3)]
        random.seed(words[0])
        np.random.seed(words[1])
        torch.manual_seed(words[2])


@contextmanager
def keep_generators() -> Iterator[None]:
    """Restore the global generators of Python, NumPy and torch (on the CPU) at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def end_with_parent() -> None:
    """End this worker process, within seconds, when the training process has ended, even if that was killed.

    Otherwise it would wait forever to hand over its batch, and keep its memory from a training that starts again.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="duplus-parent").start()


class SeededBatches:
    """Batches of a data loader, each drawn with a seed of its own.

    Args:
        loader: nnU-Net's data loader, which draws from the global generators.
        seeds: Random numbers of the training.
        purpose: TRAINING or VALIDATION.
        first: Number of the first batch.
        workers: Number of workers W; worker w yields the batches first + w, first + w + W, ...
    """

    def __init__(self, loader: Any, seeds: Seeds, purpose: int, first: int, workers: int = 1) -> None:
        self.loader, self.seeds, self.purpose = loader, seeds, purpose
        self.number, self.workers = first, workers

    def set_thread_id(self, thread_id: int) -> None:
        """Start with the first batch of a worker; called once, in its process, which ends with the training's.

        It uses one thread, as nnU-Net's workers do; in a forked process, more would wait for each other forever.
        """
        torch.set_num_threads(1)
        end_with_parent()
        self.number += thread_id
        self.loader.set_thread_id(thread_id)

    def __iter__(self) -> "SeededBatches":
        return self

    def __next__(self) -> Any:
        with keep_generators():
            self.seeds.seed_all(self.purpose, self.number)
            batch = next(self.loader)
        self.number += self.workers
        return batch


class SeededLoaders:
    """Makes what nnU-Net's `get_dataloaders` iterates over: first for training, then for validation.

    Stands for nnU-Net's augmenters, which draw in an order that depends on the speed of their workers.

    Args:
        seeds: Random numbers of the training.
        first: Number of the first batch for training, and for validation.
    """

    def __init__(self, seeds: Seeds, first: tuple[int, int]) -> None:
        self._seeds = seeds
        self._next = list(zip((TRAINING, VALIDATION), first, strict=True))

    def make_single(self, loader: Any, transform: Any) -> SingleThreadedAugmenter:
        """Make an iterator without workers."""
        return SingleThreadedAugmenter(SeededBatches(loader, self._seeds, *self._next.pop(0)), transform)

    def make_parallel(
        self, data_loader: Any, transform: Any, num_processes: int, num_cached: int = 1, **options: Any
    ) -> MultiThreadedAugmenter:
        """Make an iterator over what several workers prepare, in order.

        nnU-Net's workers share one queue of `num_cached` batches; here each has a queue of its own, of its share.
        """
        batches = SeededBatches(data_loader, self._seeds, *self._next.pop(0), num_processes)
        own = {name: options[name] for name in ("pin_memory", "wait_time") if name in options}
        return MultiThreadedAugmenter(batches, transform, num_processes, -(-num_cached // num_processes), **own)

    @property
    def names(self) -> dict[str, Any]:
        """What replaces nnU-Net's two classes, by their names."""
        return {"SingleThreadedAugmenter": self.make_single, "NonDetMultiThreadedAugmenter": self.make_parallel}
