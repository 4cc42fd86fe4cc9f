"""Whether an image can be of the context that it is said to be: in come its voxels, out comes a warning or nothing.

Only intensities that mean something can tell: Hounsfield units of computed tomography (CT), uptake values of positron
emission tomography (PET). Magnetic resonance has arbitrary units, so that hardly anything is impossible.

A context is a mapping with its `name`, its `modality` spelled out and, where the plans hold them, its `intensities`:
what `join_ranges` made of its training images. Images are raw: before any normalisation, one channel at a time.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError

Intensities = Mapping[str, float]
Ranges = Mapping[str, Sequence[float]]

STATISTICS = ("min", "p1", "p50", "p99", "max")
# Percentiles are those of at most so many voxels, drawn at random: a whole body takes seconds else.
_MOST_VOXELS = 1_000_000

_CT, _PET, _MR = "computed tomography", "positron emission tomography", "magnetic resonance imaging"
# HU. Fat has -100 and is in every body; nothing but CT has the value of air, -1000.
_FAT, _AIR = -100.0, -900.0
# Where a context's training images are unknown. Air is around a body or in it, but not in every crop.
_USUAL: Mapping[str, Ranges] = {
    _CT: {"min": (-1100.0, _FAT), "p1": (-1100.0, _FAT), "p99": (100.0, 3100.0), "max": (100.0, 3100.0)},
    _PET: {"min": (0.0, 0.1), "p1": (0.0, 0.1), "p99": (1.0, 20.0), "max": (2.0, 100.0)},
}
# How much further than any training image a plausible one may lie: for CT in widths of the training range, for PET,
# whose values are shares of what was injected, as a factor.
_CT_WIDTHS = 3.0
_PET_FACTOR_ABOVE, _PET_LEAST_ABOVE, _PET_FACTOR_BELOW = 5.0, 50.0, 20.0
# Reconstruction filters leave values slightly below 0 in PET.
_PET_LEAST, _PET_LEAST_P1 = -100.0, -5.0


def describe_intensities(array: NDArray[Any]) -> dict[str, float]:
    """Describe an image's intensities by `min`, the percentiles `p1`, `p50` and `p99`, and `max`.

    Args:
        array: An image of any shape; voxels that are no finite number are left out.

    Raises:
        DataError: No voxel is a finite number.
    """
    voxels = np.asarray(array).ravel()
    if voxels.dtype.kind == "f":
        voxels = voxels[np.isfinite(voxels)]
    if not len(voxels):
        raise DataError("The image has no voxel that is a finite number. Export or convert it again.")
    low, high = float(voxels.min()), float(voxels.max())
    if len(voxels) > _MOST_VOXELS:
        voxels = voxels[np.random.default_rng(0).integers(len(voxels), size=_MOST_VOXELS)]
    p1, p50, p99 = (float(value) for value in np.percentile(voxels, (1, 50, 99)))
    return {"min": low, "p1": p1, "p50": p50, "p99": p99, "max": high}


def join_ranges(images: Sequence[Intensities]) -> dict[str, list[float]]:
    """Join what describes single images to the range of each statistic over all of them: lowest and highest.

    Raises:
        DataError: There is no image.
    """
    if not images:
        raise DataError("There is no image to take a range of intensities from. A context needs at least one case.")
    return {name: [min(image[name] for image in images), max(image[name] for image in images)] for name in STATISTICS}


def find_implausible(
    array: NDArray[Any], context: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Find out whether an image's intensities cannot be of its context.

    Args:
        array: One channel of the raw image, of any shape.
        context: The context that it is said to be of, as described above.
        others: The model's other contexts by name, of which one may fit better.

    Returns:
        A warning that says what was found, what was expected and which context fits, if any does; None if there is
        nothing to warn of.
    """
    found = describe_intensities(array)
    fault = _find_fault(found, context)
    if fault is None:
        return None
    name, modality = context.get("name"), context.get("modality", "")
    said = f"the context {name!r} ({modality})" if name else f"a context of {modality}"
    return f"The image's values go from {_say(found['min'])} to {_say(found['max'])}, but {said} was given: {fault}" + (
        _say_better([other for other in others if other != name and _fits(found, others[other])], others)
    )


def _find_fault(found: Intensities, context: Mapping[str, Any]) -> str | None:
    """Say what is impossible, as the second half of a sentence."""
    if found["min"] == found["max"]:
        return f"all of them are {_say(found['min'])}, so that it shows nothing."
    kind = _find_kind(context.get("modality", ""))
    ranges = context.get("intensities") or _USUAL.get(kind or "")
    whose = "its training images" if context.get("intensities") else "such images"
    if kind == _CT and ranges:
        return _find_fault_in_ct(found, ranges, whose)
    if kind == _PET and ranges:
        return _find_fault_in_pet(found, ranges, whose)
    if kind == _MR and found["min"] <= _AIR and not (ranges and ranges["min"][0] <= _AIR):
        return f"values down to {_say(found['min'])} are those of air in computed tomography."
    return None


def _find_fault_in_ct(found: Intensities, ranges: Ranges, whose: str) -> str | None:
    low, high = ranges["min"]
    if high <= _FAT and found["min"] > high / 2:
        return (
            "no value is as low as the air or fat of a computed tomography in Hounsfield units; the lowest value of "
            f"{whose} is {_say_between(low, high)}."
        )
    limit = ranges["p99"][1] + _CT_WIDTHS * (ranges["p99"][1] - ranges["p1"][0])
    return _say_above(found, ranges, whose) if found["p99"] > limit else None


def _find_fault_in_pet(found: Intensities, ranges: Ranges, whose: str) -> str | None:
    low, high = ranges["min"]
    negative = found["min"] < _PET_LEAST or found["p1"] < _PET_LEAST_P1
    if negative and low >= _PET_LEAST and ranges["p1"][0] >= _PET_LEAST_P1:
        return f"uptake values are not negative; the lowest value of {whose} is {_say_between(low, high)}."
    if found["p99"] > max(_PET_FACTOR_ABOVE * ranges["p99"][1], _PET_LEAST_ABOVE):
        return _say_above(found, ranges, whose)
    least, most = ranges["max"]
    if found["max"] < least / _PET_FACTOR_BELOW:
        return f"they are far too small; the highest value of {whose} is {_say_between(least, most)}."
    return None


def _find_kind(modality: str) -> str | None:
    """Find the modality whose rules apply; none for several at once, or where its numbers mean nothing."""
    words = modality.casefold()
    kinds = [kind for kind in (_CT, _PET, _MR) if kind in words]
    return kinds[0] if len(kinds) == 1 and "cone" not in words else None


def _fits(found: Intensities, context: Mapping[str, Any]) -> bool:
    return _find_kind(context.get("modality", "")) is not None and _find_fault(found, context) is None


def _say_better(fitting: Sequence[str], others: Mapping[str, Mapping[str, Any]]) -> str:
    """Name the contexts that fit. What fits a scale that means something says more than what fits an arbitrary one."""
    telling = [name for name in fitting if _find_kind(others[name].get("modality", "")) != _MR] or list(fitting)
    if not telling:
        return " Check the context and the image's unit."
    listed = " or ".join(f"{name!r} ({others[name]['modality']})" for name in telling)
    return f" They fit the context {listed}. Check which one the image is of."


def _say_above(found: Intensities, ranges: Ranges, whose: str) -> str:
    low, high = ranges["p99"]
    return (
        f"they are far too large; 99 % of this image's values stay below {_say(found['p99'])}, those of {whose} below "
        f"{_say(low)} to {_say(high)}."
    )


def _say_between(low: float, high: float) -> str:
    return _say(low) if low == high else f"between {_say(low)} and {_say(high)}"


def _say(value: float) -> str:
    return f"{value:.0f}" if math.isclose(value, round(value)) or abs(value) >= 100 else f"{value:.3g}"
