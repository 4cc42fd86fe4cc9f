"""Chooses the axes along which a training mirrors its images."""

from collections.abc import Iterable

from duplus_nnunet.settings import Settings


def choose_mirror_axes(axes: Iterable[int], across: int | None, has_sides: bool, settings: Settings) -> tuple[int, ...]:
    """Choose the array axes (0 to 2) along which images are mirrored, of those that nnU-Net would mirror.

    Args:
        axes: nnU-Net's axes.
        across: The left-right axis; None: unknown.
        has_sides: Whether some target has a side. Where the left-right axis is unknown, no image is mirrored then.
        settings: Which axes a user left out; each of the two settings leaves out all where the left-right axis is
            unknown.

    Example:
        >>> choose_mirror_axes((0, 1, 2), 2, True, Settings(mirror_other_axes=False))
        (2,)
        >>> choose_mirror_axes((0, 1, 2), None, False, Settings(mirror_left_right=False))
        ()
    """
    left_right, others = settings.mirror_left_right, settings.mirror_other_axes
    if across is None:
        return tuple(axes) if left_right and others and not has_sides else ()
    return tuple(axis for axis in axes if (left_right if axis == across else others))
