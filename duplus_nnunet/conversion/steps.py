"""Changes that a recipe makes to the images and label maps of a case, where a dataset is not as it should be.

Each step takes a `Loaded` case and the recipe's options, and returns the changed case. What it cannot decide, it
refuses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform

from duplus_nnunet.conversion.loaded import Loaded
from duplus_nnunet.conversion.suv import convert_to_suv, require_suv
from duplus_nnunet.conversion.volumes import Array, Volume, find_grid_difference
from duplus_nnunet.errors import DataError, describe_unknown

# Least distance, in mm, of the centres of two structures of which one is on the left.
_LEAST_SIDES = 10.0
# Mean intensity, in HU, below which a structure is filled with air.
_AIR = -400.0
_COSINES = 1e-3
# Largest difference of equal affines, in mm.
_SAME_PLACE = 1e-3


Step = Callable[[Loaded, Mapping[str, Any]], Loaded]


def run_steps(case: Loaded, steps: Sequence[tuple[str, Mapping[str, Any]]]) -> Loaded:
    """Apply steps in turn.

    Raises:
        DataError: A step cannot decide, or an option is missing.
    """
    for name, options in steps:
        try:
            case = STEPS[name](case, options)
        except KeyError as error:
            raise DataError(f"{case.name}: the step {name!r} lacks the option {error.args[0]!r}.") from error
    return case


def set_lost_spacing(case: Loaded, options: Mapping[str, Any]) -> Loaded:
    """Set the known distance of slices where an image lost its geometry (1 mm in all directions, no position).

    Options: `field` that names the image, `spacing`: mm by its value. Spacing within the slices is lost for good.
    """
    image = case.images[0]
    if not np.allclose(np.abs(image.affine), np.eye(4), atol=1e-6):
        return case
    known = {str(key): float(mm) for key, mm in options["spacing"].items()}
    mm = known.get(case.fields[options["field"]])
    case = case.note(
        "the image has lost its geometry: its spacing is 1 mm in all directions, which is wrong within the slices and "
        + (f"was set to {mm:g} mm between them" if mm else "between them")
        + "; volumes and distances in this case are wrong"
    )
    if mm is None:
        return case
    scale = np.diag([1.0, 1.0, mm, 1.0])
    images = tuple(replace(image, affine=image.affine @ scale) for image in case.images)
    label = None if case.label is None else replace(case.label, affine=case.label.affine @ scale)
    return replace(case, images=images, label=label)


def straighten(case: Loaded, _: Mapping[str, Any]) -> Loaded:
    """Replace axes that are not at right angles by the nearest that are; spacing and centre stay."""
    volumes = [_straighten(image) for image in case.images]
    label = None if case.label is None else _straighten(case.label)
    bent = [volume for volume, image in zip(volumes, case.images, strict=True) if volume is not image]
    case = replace(case, images=tuple(volumes), label=label)
    return case.note("its axes were not at right angles and were replaced by the nearest that are") if bent else case


def _straighten(volume: Volume) -> Volume:
    spacing = volume.spacing
    axes = volume.affine[:3, :3] / spacing
    if np.allclose(axes.T @ axes, np.eye(3), atol=_COSINES / 10):
        return volume
    left, _, right = np.linalg.svd(axes)
    nearest = left @ right
    if np.abs(axes - nearest).max() > 0.1:
        raise DataError(f"{volume.file}: its axes are far from right angles. Resample the image.")
    affine = np.eye(4)
    affine[:3, :3] = nearest * spacing
    centre = (np.array(volume.array.shape[:3]) - 1) / 2
    affine[:3, 3] = (volume.affine[:3, :3] - affine[:3, :3]) @ centre + volume.affine[:3, 3]
    return replace(volume, affine=affine)


def check_sides(case: Loaded, options: Mapping[str, Any]) -> Loaded:
    """Exchange two targets whose sides are stored the other way round than the recipe says; geometry decides.

    Options: `left`, `right`: the targets' names; `exchange: false` refuses such a case, where other targets would have
    to be exchanged too.

    Raises:
        DataError: Their centres are too close to each other to decide, or only one of the two is there.
    """
    left, right = options["left"], options["right"]
    centres = [_find_centre(case, name) for name in (left, right)]
    if centres[0] is None or centres[1] is None:
        _refuse_single(case, left, right, centres)
        return case
    distance = float(centres[1][0] - centres[0][0])  # towards the right
    if abs(distance) < _LEAST_SIDES:
        raise DataError(
            f"{case.name}: the centres of {left!r} and {right!r} are {abs(distance):.0f} mm apart from left to "
            "right, too close to decide which is which. Check the label map, or leave the case out."
        )
    if distance < 0 and options.get("exchange") is False:
        raise DataError(
            f"{case.name}: {left!r} lies to the right of {right!r}. The values of left and right may be exchanged in "
            "all of its targets. Check the label map and the image's direction, or leave the case out."
        )
    return case if distance > 0 else _exchange(case, left, right, "by their sides")


def check_air(case: Loaded, options: Mapping[str, Any]) -> Loaded:
    """Exchange two targets of which one is filled with air, where the label map has them the other way round.

    Options: `air`, `tissue`: the targets' names.

    Raises:
        DataError: Both or neither look filled with air, or only one of the two is there.
    """
    air, tissue = options["air"], options["tissue"]
    means = [_measure(case, name) for name in (air, tissue)]
    if means[0] is None or means[1] is None:
        _refuse_single(case, air, tissue, means)
        return case
    filled = [mean < _AIR for mean in means if mean is not None]
    if filled[0] == filled[1]:
        raise DataError(
            f"{case.name}: the mean intensity of {air!r} is {means[0]:.0f}, that of {tissue!r} {means[1]:.0f}; one of "
            f"them should be below {_AIR:.0f}, which is air. Check the label map, or leave the case out."
        )
    return case if filled[0] else _exchange(case, air, tissue, "by their intensities")


def resample(case: Loaded, options: Mapping[str, Any]) -> Loaded:
    """Resample the images to one grid: that of the label map if there is one, else that of the first channel.

    Images are interpolated linearly; outside of an image its lowest value is taken. A label map on another grid is
    resampled by nearest voxels. Options: `channel`, whose grid is taken instead.
    """
    channel = options.get("channel")
    grid = case.label or case.images[0] if channel is None else case.images[int(channel)]
    images = tuple(_resample(image, grid, 1) for image in case.images)
    label = None if case.label is None else _resample(case.label, grid, 0)
    pairs = [*zip(images, case.images, strict=True)]
    changed = sum(new.array is not old.array for new, old in pairs)
    moved = sum(new is not old and new.array is old.array for new, old in pairs)
    is_label_changed = label is not None and case.label is not None and label.array is not case.label.array
    case = replace(case, images=images, label=label)
    if changed:
        case = case.note(f"{changed} of {len(images)} images were resampled to the grid of {grid.file.name}")
    if moved:
        case = case.note(
            f"{moved} of {len(images)} images lie less than a voxel beside {grid.file.name}; set to its place"
        )
    if is_label_changed:
        case = case.note(f"its label map was resampled to the grid of {grid.file.name}, by nearest voxels")
    return case


def _resample(volume: Volume, grid: Volume, order: int) -> Volume:
    if not find_grid_difference(grid, volume):
        same = np.allclose(volume.affine, grid.affine, atol=_SAME_PLACE)
        return volume if same else replace(volume, affine=grid.affine)
    across = np.linalg.inv(volume.affine) @ grid.affine
    voxels, outside = (volume.array.astype(np.float32), float(volume.array.min())) if order else (volume.array, 0.0)
    shape = grid.array.shape[:3]
    array: Array = affine_transform(voxels, across[:3, :3], across[:3, 3], shape, order=order, cval=outside)
    return Volume(array, grid.affine, volume.file)


def _refuse_single(case: Loaded, first: str, second: str, found: Sequence[object]) -> None:
    """Refuse a case that has one of two targets whose values may be exchanged, since nothing tells which one it is."""
    if any(item is not None for item in found):
        present = first if found[0] is not None else second
        raise DataError(
            f"{case.name} has {present!r} alone, of {first!r} and {second!r}, so that nothing tells which of them it "
            "is. Check the label map, or leave the case out."
        )


def _find_centre(case: Loaded, name: str) -> Array | None:
    """Return the centre of a target in mm (RAS+); None if the case does not have it."""
    mask = _find_mask(case, name)
    if mask is None or case.label is None or not mask.any():
        return None
    centre: Array = case.label.affine[:3, :3] @ np.argwhere(mask).mean(0) + case.label.affine[:3, 3]
    return centre


def _measure(case: Loaded, name: str) -> float | None:
    mask = _find_mask(case, name)
    return None if mask is None or not mask.any() else float(case.images[0].array[mask].mean())


def _find_mask(case: Loaded, name: str) -> Array | None:
    if name not in case.values:
        raise DataError(f"{case.name}: {describe_unknown('label', name, case.values)}")
    return None if case.label is None else case.label.array == case.values[name]


def _exchange(case: Loaded, first: str, second: str, reason: str) -> Loaded:
    if case.label is None:
        return case
    masks = [case.label.array == case.values[name] for name in (first, second)]
    array = case.label.array.copy()
    array[masks[0]], array[masks[1]] = case.values[second], case.values[first]
    case = replace(case, label=case.label.with_array(array))
    return case.note(f"the values of {first!r} and {second!r} were exchanged, {reason}")


STEPS: dict[str, Step] = {
    "set_lost_spacing": set_lost_spacing,
    "straighten": straighten,
    "check_sides": check_sides,
    "check_air": check_air,
    "resample": resample,
    "require_suv": require_suv,
    "convert_to_suv": convert_to_suv,
}
