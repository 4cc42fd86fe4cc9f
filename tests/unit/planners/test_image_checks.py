"""Image files against the plans, by their headers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.image_checks import PlannedGrid, find_doubts, read_headers

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def save(spacing: Sequence[float] = (1, 2, 3), shape: Sequence[int] = (4, 5, 6), number: int = 0) -> str:
        image = SimpleITK.GetImageFromArray(np.zeros(shape, np.uint8))
        image.SetSpacing([float(width) for width in spacing[::-1]])
        file = str(tmp_path / f"case_{number:04}.nii.gz")
        SimpleITK.WriteImage(image, file)
        return file

    return save


def doubt(file: str, *spacing: float, order: Sequence[int] = (0, 1, 2), orientation: str | None = None) -> list[str]:
    return find_doubts([file], read_headers([file], "SimpleITKIO"), PlannedGrid(spacing, order, orientation))


def test_channels_have_one_grid(write: Write) -> None:
    first = write()
    assert len(read_headers([first, write(number=1)], "SimpleITKIO")) == 2
    for other in ({"shape": (4, 5, 7)}, {"spacing": (1, 2, 3.1)}):
        with pytest.raises(DataError, match=r"case_0001.*case_0000"):
            read_headers([first, write(number=1, **other)], "SimpleITKIO")


def test_a_spacing_near_the_plans_is_fine_and_a_far_one_is_not(write: Write) -> None:
    assert doubt(write(), 1, 2, 3) == []
    assert len(doubt(write(), 5, 2, 3)) == 1
    for far in (0.09, 11):
        with pytest.raises(DataError, match=r"case_0000.* 11"):
            doubt(write(), far, 2, 3)


def test_axes_are_compared_in_the_plans_order(write: Write) -> None:
    file = write(spacing=(1, 1, 8))
    assert doubt(file, 8, 1, 1, order=(2, 0, 1)) == []
    assert doubt(file, 1, 8, 1, orientation="PLS") == []
    assert len(doubt(file, 1, 1, 1)) == 1


def test_a_2d_configuration_leaves_the_first_axis_alone(write: Write) -> None:
    assert doubt(write(spacing=(20, 2, 3)), 2, 3) == []


def test_an_image_that_would_not_fit_the_memory_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(shape=(10, 10, 10), spacing=(2, 2, 2))
    free = type("Free", (), {"available": 4 * (8000 + 1000)})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    assert doubt(file, 1, 1, 1) == []
    free.available -= 1
    with pytest.raises(DataError, match=r"case_0000.*20 x 20 x 20 = 8000"):
        doubt(file, 1, 1, 1)
