"""Chooses the axes along which a training mirrors its images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from nnunetv2.configuration import ANISO_THRESHOLD

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


@dataclass(frozen=True)
class Anatomy:
    """What decides, beside the settings, along which axes images are mirrored.

    Attributes:
        across: The left-right axis (0 to 2) of the images; None: unknown.
        has_sides: Whether some target has a side.
        patches: Patch size (voxels) of each configuration; nnU-Net turns images of flat patches by any angle.
    """

    across: int | None
    has_sides: bool
    patches: Mapping[str, Sequence[int]]

    def list_axes(self, settings: Settings) -> dict[str, tuple[int, ...]]:
        """List the array axes (0 to 2) along which images are mirrored in training, by configuration."""
        return {
            name: choose_mirror_axes(
                range(3), self.across, self.has_sides, settings, max(patch) / patch[0] > ANISO_THRESHOLD
            )
            for name, patch in self.patches.items()
        }

    def follow(self, axes: Iterable[int]) -> dict[str, bool]:
        """Choose the settings with which images are mirrored along as many as possible of some axes, and no others.

        Args:
            axes: Array axes (0 to 2), such as those along which the images of a model were mirrored.

        Returns:
            `mirror_left_right` and `mirror_other_axes`.
        """
        allowed, best, most = set(axes), Settings(mirror_left_right=False, mirror_other_axes=False), 0
        for left_right, others in product((False, True), repeat=2):
            settings = Settings(mirror_left_right=left_right, mirror_other_axes=others)
            found = self.list_axes(settings).values()
            number = sum(map(len, found))
            if number > most and all(map(allowed.issuperset, found)):
                best, most = settings, number
        return {name: getattr(best, name) for name in ("mirror_left_right", "mirror_other_axes")}


def describe_axes(axes: Sequence[int]) -> str:
    """Describe along which array axes images are mirrored.

    Example:
        >>> describe_axes((0, 1)), describe_axes(())
        ('mirrored along the array axes 0, 1', 'not mirrored')
    """
    listed = ", ".join(map(str, axes))
    return f"mirrored along the array ax{'is' if len(axes) == 1 else 'es'} {listed}" if axes else "not mirrored"


def compare_mirroring(own: Mapping[str, Sequence[int]], theirs: Sequence[int] | None) -> list[str]:
    """Compare along which axes images are mirrored and those of a model were, as notes for the user.

    Args:
        own: Array axes by configuration, as from `Anatomy.list_axes`.
        theirs: Array axes of the model's images; None: they are not known.

    Example:
        >>> compare_mirroring({"3d_fullres": (0, 1)}, (0, 1))
        ["images are mirrored along the array axes 0, 1, as the model's were"]
    """
    notes = []
    for axes in sorted(set(map(tuple, own.values()))):
        names = [name for name, found in own.items() if tuple(found) == axes]
        where = "" if len(names) == len(own) else f"{', '.join(names)}: "
        if theirs is None:
            end = "; how the model's were is not known"
        elif set(axes) == set(theirs):
            end = ", as the model's were" if axes else ", nor were the model's"
        else:
            end = f"; the model's were {describe_axes(sorted(theirs))} (settings.mirror_left_right, mirror_other_axes)"
        notes.append(f"{where}images are {describe_axes(axes)}{end}")
    return notes
