"""The axes along which images are mirrored in training and in prediction."""

from types import SimpleNamespace

import pytest

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
