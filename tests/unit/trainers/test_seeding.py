"""Random numbers of a training."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from duplus_nnunet.trainers.seeding import (
    DROPOUT,
    PROMPTS,
    TRAINING,
    VALIDATION,
    WEIGHTS,
    SeededBatches,
    SeededLoaders,
    Seeds,
    keep_generators,
)

SEEDS = Seeds(7, 0)


class Loader:
    """Draws from every global generator, as nnU-Net's data loader does."""

    def __next__(self) -> dict[str, Any]:
        return {"drawn": (random.random(), float(np.random.rand()), float(torch.rand(())))}

    def __iter__(self) -> "Loader":
        return self

    def set_thread_id(self, thread_id: int) -> None:
        self.thread = thread_id


def take(batches: Any, count: int) -> list[Any]:
    return [next(batches)["drawn"] for _ in range(count)]


@pytest.mark.parametrize("purpose", [WEIGHTS, TRAINING, VALIDATION, PROMPTS, DROPOUT])
def test_equal_seeds_draw_equal_numbers(purpose: int) -> None:
    assert SEEDS.draw(purpose, 3).random() == Seeds(7, 0).draw(purpose, 3).random()


@pytest.mark.parametrize("other", [Seeds(8, 0), Seeds(7, 1), Seeds(7, "all"), Seeds(7, 0, rank=1)])
def test_seed_fold_and_rank_change_the_batches(other: Seeds) -> None:
    assert SEEDS.draw(TRAINING).random() != other.draw(TRAINING).random()


def test_all_ranks_start_from_the_same_weights() -> None:
    assert SEEDS.draw(WEIGHTS).random() == Seeds(7, 0, rank=1).draw(WEIGHTS).random()


def test_purposes_and_numbers_are_independent() -> None:
    drawn = [SEEDS.draw(purpose, number).random() for purpose in range(5) for number in range(3)]
    assert len(set(drawn)) == 15


def test_all_global_generators_are_seeded() -> None:
    with keep_generators():
        SEEDS.seed_all(TRAINING, 2)
        first = next(Loader())
        SEEDS.seed_all(TRAINING, 2)
        assert next(Loader()) == first


def test_global_generators_are_restored() -> None:
    with keep_generators():
        SEEDS.seed_all(DROPOUT)
        expected = next(Loader())
        SEEDS.seed_all(DROPOUT)
        with keep_generators():
            next(Loader())
        assert next(Loader()) == expected


def test_a_batch_depends_on_its_number_alone() -> None:
    whole = take(SeededBatches(Loader(), SEEDS, TRAINING, 0), 5)
    assert take(SeededBatches(Loader(), SEEDS, TRAINING, 3), 2) == whole[3:]


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    whole = take(SeededBatches(Loader(), SEEDS, TRAINING, 0), 6)
    for workers in (1, 2, 3):
        loaders = SeededLoaders(SEEDS, (0, 0))
        parallel = loaders.make_parallel(data_loader=Loader(), transform=None, num_processes=workers, num_cached=6)
        try:
            assert take(parallel, 6) == whole
        finally:
            parallel._finish()


def test_nnunets_names_make_training_batches_first() -> None:
    names = SeededLoaders(SEEDS, (4, 2)).names
    training, held_out = (names["SingleThreadedAugmenter"](Loader(), None) for _ in range(2))
    assert take(training, 1) == take(SeededBatches(Loader(), SEEDS, TRAINING, 4), 1)
    assert take(held_out, 1) == take(SeededBatches(Loader(), SEEDS, VALIDATION, 2), 1)


@pytest.mark.parametrize(("workers", "share"), [(1, 6), (2, 3), (4, 2), (12, 1)])
def test_workers_share_the_number_of_batches_that_nnunet_prepares_ahead(workers: int, share: int) -> None:
    made = SeededLoaders(SEEDS, (0, 0)).make_parallel(Loader(), None, num_processes=workers, num_cached=6)
    assert made.num_cached_per_queue == share


def test_nnunet_ends_the_workers_of_this_kind_itself() -> None:
    loaders = SeededLoaders(SEEDS, (0, 0))
    made = loaders.make_parallel(data_loader=Loader(), transform=None, num_processes=1)
    assert isinstance(made, MultiThreadedAugmenter)
