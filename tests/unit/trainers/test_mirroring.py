"""The axes along which images are mirrored in training and in prediction."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from duplus_nnunet.mirroring import Anatomy, choose_mirror_axes, compare_mirroring
from duplus_nnunet.settings import Settings
from duplus_nnunet.trainers import DuPLUSTrainer

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


FLAT, CUBE = (8, 48, 48), (24, 24, 24)


@pytest.mark.parametrize("patches", [(FLAT,), (CUBE,), (FLAT, CUBE)])
@pytest.mark.parametrize("has_sides", [True, False])
@pytest.mark.parametrize("across", [None, 0, 1, 2])
def test_images_are_mirrored_along_as_many_axes_of_a_model_as_possible_and_no_others(
    across: int | None, has_sides: bool, patches: tuple[tuple[int, ...], ...]
) -> None:
    anatomy = Anatomy(across, has_sides, {str(number): patch for number, patch in enumerate(patches)})
    choices = [Settings(mirror_left_right=a, mirror_other_axes=b) for a in (False, True) for b in (False, True)]
    for number in range(4):
        for axes in combinations(range(3), number):
            possible = [
                sum(map(len, found.values()))
                for found in map(anatomy.list_axes, choices)
                if all(map(set(axes).issuperset, found.values()))
            ]
            followed = anatomy.list_axes(Settings(**anatomy.follow(axes)))
            assert all(map(set(axes).issuperset, followed.values()))
            assert sum(map(len, followed.values())) == max(possible)


@pytest.mark.parametrize(
    ("axes", "across", "has_sides", "patch", "expected"),
    [
        ((0, 1, 2), 2, True, CUBE, (True, True)), ((), 2, True, CUBE, (False, False)),
        ((0, 1), 2, True, CUBE, (False, True)), ((2,), 2, True, CUBE, (True, False)),
        ((0, 2), 2, True, CUBE, (True, False)), ((0, 2), 2, True, FLAT, (True, True)),
        ((0, 2), 2, False, FLAT, (False, True)), ((0, 1), None, False, CUBE, (False, False)),
        ((2,), None, False, FLAT, (False, False)), ((0, 1, 2), None, False, CUBE, (True, True)),
        ((0, 1, 2), None, True, CUBE, (False, False)),
    ],
)  # fmt: skip
def test_settings_with_which_images_are_mirrored_as_a_models_were(
    axes: tuple[int, ...], across: int | None, has_sides: bool, patch: tuple[int, ...], expected: tuple[bool, bool]
) -> None:
    assert tuple(Anatomy(across, has_sides, {"3d_fullres": patch}).follow(axes).values()) == expected


@pytest.mark.parametrize(
    ("own", "theirs", "numbers"),
    [((), (), set()), ((0, 2), (2, 0), {"0", "2"}), ((0, 1), (), {"0", "1"}), ((), (1,), {"1"}), ((1,), None, {"1"})],
)
def test_axes_of_images_and_of_a_models_are_compared(
    own: tuple[int, ...], theirs: tuple[int, ...] | None, numbers: set[str]
) -> None:
    (note,) = compare_mirroring({"3d_fullres": own, "3d_lowres": own}, theirs)
    assert {word for word in note if word.isdigit()} == numbers
    assert ("settings" in note) == (theirs is not None and set(own) != set(theirs))
    assert ("not known" in note) == (theirs is None)


def test_configurations_that_mirror_along_other_axes_are_named() -> None:
    notes = compare_mirroring({"low": (0,), "full": (0, 2), "mine": (0, 2)}, (0, 2))
    assert [note.split(":")[0] for note in notes] == ["low", "full, mine"]


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
