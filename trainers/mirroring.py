"""Chooses the axes along which a training mirrors its images."""

from collections.abc import Iterable

from duplus_nnunet.settings import Settings

# Array axes of a slice; the third, axis 0, goes through the slices.
_IN_SLICE = (1, 2)


def choose_mirror_axes(
    axes: Iterable[int], across: int | None, has_sides: bool, settings: Settings, turned: bool = False
) -> tuple[int, ...]:
    """Choose the array axes (0 to 2) along which images are mirrored, of those that nnU-Net would mirror.

    Args:
        axes: nnU-Net's axes.
        across: The left-right axis; None: unknown.
        has_sides: Whether some target has a side. Where the left-right axis is unknown, no image is mirrored then.
        settings: Which axes a user wants; both settings are needed where the left-right axis is unknown.
        turned: Whether images are turned about axis 0 by any angle, as nnU-Net does where slices are thick. Together
            with half a turn, an image mirrored along the other axis in the slice is one mirrored from left to right,
            with the labels of the sides not exchanged: that axis is left out where sides matter.

    Example:
        >>> choose_mirror_axes((0, 1, 2), 2, True, Settings(mirror_left_right=True))
        (2,)
        >>> both = Settings(mirror_left_right=True, mirror_other_axes=True)
        >>> choose_mirror_axes((0, 1, 2), 2, True, both, turned=True)
        (0, 2)
        >>> choose_mirror_axes((0, 1, 2), None, False, Settings(mirror_other_axes=True))
        ()
    """
    left_right, others = settings.mirror_left_right, settings.mirror_other_axes
    if across is None:
        return tuple(axes) if left_right and others and not has_sides else ()
    unlike = 3 - across if turned and across in _IN_SLICE and (has_sides or not left_right) else None
    return tuple(axis for axis in axes if axis != unlike and (left_right if axis == across else others))
