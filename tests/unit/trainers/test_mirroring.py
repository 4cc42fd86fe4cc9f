"""The axes along which images are mirrored in training and in prediction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from duplus_nnunet.settings import Settings
from duplus_nnunet.trainers import DuPLUSTrainer
from duplus_nnunet.trainers.mirroring import choose_mirror_axes

ALL = (0, 1, 2)
CASES = [
    # left-right axis, sides, mirror_left_right, mirror_other_axes; mirrored along
    (2, True, True, True, ALL),
    (2, False, True, True, ALL),
    (2, True, False, True, (0, 1)),
    (2, False, False, True, (0, 1)),
    (0, True, True, False, (0,)),
    (0, False, True, False, (0,)),
    (1, True, False, False, ()),
    (None, True, True, True, ()),
    (None, False, True, True, ALL),
    (None, False, False, True, ()),
    (None, False, True, False, ()),
]


@pytest.mark.parametrize(("across", "has_sides", "left_right", "others", "expected"), CASES)
def test_settings_leave_axes_out(
    across: int | None, has_sides: bool, left_right: bool, others: bool, expected: tuple[int, ...]
) -> None:
    settings = Settings(mirror_left_right=left_right, mirror_other_axes=others)
    assert choose_mirror_axes(ALL, across, has_sides, settings) == expected


@pytest.mark.parametrize(
    ("across", "has_sides", "left_right", "expected"),
    [(2, True, True, (0, 2)), (1, True, True, (0, 1)), (2, True, False, (0,)), (2, False, False, (0,)),
     (2, False, True, ALL), (0, True, True, ALL), (None, True, True, ())],
)  # fmt: skip
def test_an_axis_that_with_half_a_turn_mirrors_from_left_to_right_is_left_out(
    across: int | None, has_sides: bool, left_right: bool, expected: tuple[int, ...]
) -> None:
    settings = Settings(mirror_left_right=left_right, mirror_other_axes=True)
    assert choose_mirror_axes(ALL, across, has_sides, settings, turned=True) == expected


def make_trainer(across: int, patch: tuple[int, int, int]) -> DuPLUSTrainer:
    trainer = DuPLUSTrainer.__new__(DuPLUSTrainer)
    trainer.settings = Settings(mirror_left_right=True, mirror_other_axes=True)
    trainer.bank = SimpleNamespace(form=SimpleNamespace(left_right_axis=across), has_sides=True)  # type: ignore
    trainer.configuration_manager = SimpleNamespace(patch_size=patch)
    trainer.print_to_log_file = lambda *_: None  # type: ignore[method-assign]
    return trainer


@pytest.mark.parametrize("across", [1, 2])
@pytest.mark.parametrize("patch", [(8, 48, 48), (24, 24, 24)])
def test_augmentation_never_mirrors_from_left_to_right_without_exchanging_prompts(
    across: int, patch: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    rotation, dummy_2d, _, axes = make_trainer(
        across, patch
    ).configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert dummy_2d == (patch[0] == 8)
    labels = torch.zeros(1, patch[0], 48, 48, dtype=torch.int16)
    labels[..., 22:28, 14:20], labels[..., 22:28, 30:36], labels[..., 14:20, 21:27] = 1, 2, 3  # left, right, front
    labels = labels if across == 2 else labels.transpose(2, 3)
    transform = DuPLUSTrainer.get_training_transforms(patch, rotation, None, axes, dummy_2d)
    seen = set()
    for _ in range(120):
        found = transform(image=labels.float(), segmentation=labels)["segmentation"][0]
        marks = [(found == value).nonzero().float() for value in (1, 2, 3)]
        if all(map(len, marks)):
            left, right, front = (mark.mean(0)[[3 - across, across]] for mark in marks)
            side, ahead = right - left, front - (left + right) / 2
            turn = float(side[1] * ahead[0] - side[0] * ahead[1])
            # Mirrored from front to back, with the sides where they were, is told apart by the network.
            seen.add((turn < 0, float(side[1]) > 0))
    assert (True, True) in seen
    assert (False, False) not in seen


@pytest.mark.parametrize(("across", "has_sides", "left_right", "others", "expected"), CASES)
def test_trainer_and_augmentation_share_the_chosen_axes(
    across: int | None, has_sides: bool, left_right: bool, others: bool, expected: tuple[int, ...]
) -> None:
    trainer = DuPLUSTrainer.__new__(DuPLUSTrainer)
    trainer.settings = Settings(mirror_left_right=left_right, mirror_other_axes=others)
    trainer.bank = SimpleNamespace(form=SimpleNamespace(left_right_axis=across), has_sides=has_sides)  # type: ignore
    trainer.configuration_manager = SimpleNamespace(patch_size=(32, 32, 32))
    trainer.print_to_log_file = lambda *_: None  # type: ignore[method-assign]
    *_, augmented = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert trainer.inference_allowed_mirroring_axes == (expected or None)
    exchanged = {across} if has_sides and across in expected else set()
    assert {axis for axis in (trainer._across,) if axis is not None} == exchanged
    assert set(augmented or ()) == set(expected) - exchanged
    assert augmented is None or augmented
