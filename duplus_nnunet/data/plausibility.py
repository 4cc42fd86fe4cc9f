"""Checks whether the intensities of an image are plausible for its context.

Only intensities on an absolute scale allow this: Hounsfield units of computed tomography (CT) and uptake values of
positron emission tomography (PET). Magnetic resonance imaging has arbitrary units, so that few values are impossible.

A context is a mapping with its `name`, its `modality` spelled out and, where the plans contain them, its `intensities`:
the result of `join_ranges` for its training images. Images are raw, one channel at a time, without normalisation.
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
# Percentiles are computed from at most this many voxels, drawn at random; a whole-body image would take seconds.
_MOST_VOXELS = 1_000_000

_CT, _PET, _MR = "computed tomography", "positron emission tomography", "magnetic resonance imaging"
# In HU. Fat, about -100, occurs in every body; air, -1000, occurs in no other modality.
_FAT, _AIR = -100.0, -900.0
# Used if the training images of a context are unknown. Not every cropped image contains air.
_USUAL: Mapping[str, Ranges] = {
    _CT: {"min": (-1100.0, _FAT), "p1": (-1100.0, _FAT), "p99": (100.0, 3100.0), "max": (100.0, 3100.0)},
    _PET: {"min": (0.0, 0.1), "p1": (0.0, 0.1), "p99": (1.0, 20.0), "max": (2.0, 100.0)},
}
# How far a plausible image may lie outside the range of the training images: for CT in widths of that range, for PET,
# whose values are relative to the injected dose, as a factor.
_CT_WIDTHS = 3.0
_PET_FACTOR_ABOVE, _PET_LEAST_ABOVE, _PET_FACTOR_BELOW = 5.0, 50.0, 20.0
# In PET, reconstruction filters produce values slightly below 0.
_PET_LEAST, _PET_LEAST_P1 = -100.0, -5.0


def describe_intensities(array: NDArray[Any]) -> dict[str, float]:
    """Summarise the intensities of an image by `min`, the percentiles `p1`, `p50` and `p99`, and `max`.

    Args:
        array: An image of any shape; non-finite voxels are ignored.

    Raises:
        DataError: No voxel is finite.
    """
    voxels = np.asarray(array).ravel()
    if voxels.dtype.kind == "f":
        voxels = voxels[np.isfinite(voxels)]
    if not len(voxels):
        raise DataError("The image has no finite voxel. Export or convert it again.")
    low, high = float(voxels.min()), float(voxels.max())
    if len(voxels) > _MOST_VOXELS:
        voxels = voxels[np.random.default_rng(0).integers(len(voxels), size=_MOST_VOXELS)]
    p1, p50, p99 = (float(value) for value in np.percentile(voxels, (1, 50, 99)))
    return {"min": low, "p1": p1, "p50": p50, "p99": p99, "max": high}


def join_ranges(images: Sequence[Intensities]) -> dict[str, list[float]]:
    """Compute the range of each statistic over several images: its lowest and highest value.

    Raises:
        DataError: There is no image.
    """
    if not images:
        raise DataError("There is no image to compute a range of intensities from. A context needs at least one case.")
    return {name: [min(image[name] for image in images), max(image[name] for image in images)] for name in STATISTICS}


def find_implausible(
    array: NDArray[Any], context: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Check whether the intensities of an image are impossible in its context.

    Args:
        array: One channel of the raw image, of any shape.
        context: Its context, as described above.
        others: The model's other contexts by name, one of which may fit better.

    Returns:
        A warning with the intensities, the expected ones and the contexts that fit, if any; None if the intensities are
        plausible.
    """
    return judge_intensities(describe_intensities(array), context, others)


def judge_intensities(
    values: Intensities, context: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Check as `find_implausible` does, by the statistics of `describe_intensities`."""
    fault = _find_fault(values, context)
    if fault is None:
        return None
    name, modality = context.get("name"), context.get("modality", "")
    chosen = f"the context {name!r} ({modality})" if name else f"a context of {modality}"
    fitting = [other for other in others if other != name and _fits(values, others[other])]
    return (
        f"The image has values from {_format(values['min'])} to {_format(values['max'])}, but {chosen} was given: "
        f"{fault}{_suggest(fitting, others)}"
    )


def find_fitting(values: Intensities, contexts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List the contexts on whose scale the intensities of an image are plausible.

    Args:
        values: Statistics of `describe_intensities`.
        contexts: Contexts by name, as described above; those of several modalities, or of one without rules, never fit.
    """
    return [name for name, context in contexts.items() if _fits(values, context)]


def _find_fault(values: Intensities, context: Mapping[str, Any]) -> str | None:
    """Return what is impossible, as the second half of a sentence; None if nothing is."""
    if values["min"] == values["max"]:
        return f"all of them are {_format(values['min'])}, so that the image is empty."
    kind = _find_kind(context.get("modality", ""))
    ranges = context.get("intensities") or _USUAL.get(kind or "")
    whose = "its training images" if context.get("intensities") else "such images"
    if kind == _CT and ranges:
        return _find_fault_in_ct(values, ranges, whose)
    if kind == _PET and ranges:
        return _find_fault_in_pet(values, ranges, whose)
    if kind == _MR and values["min"] <= _AIR and not (ranges and ranges["min"][0] <= _AIR):
        return f"values as low as {_format(values['min'])} are those of air in computed tomography."
    return None


def _find_fault_in_ct(values: Intensities, ranges: Ranges, whose: str) -> str | None:
    low, high = ranges["min"]
    if high <= _FAT and values["min"] > high / 2:
        return (
            "no value is as low as the air or fat of a computed tomography in Hounsfield units; the lowest value of "
            f"{whose} is {_describe_range(low, high)}."
        )
    limit = ranges["p99"][1] + _CT_WIDTHS * (ranges["p99"][1] - ranges["p1"][0])
    return _describe_too_high(values, ranges, whose) if values["p99"] > limit else None


def _find_fault_in_pet(values: Intensities, ranges: Ranges, whose: str) -> str | None:
    low, high = ranges["min"]
    negative = values["min"] < _PET_LEAST or values["p1"] < _PET_LEAST_P1
    if negative and low >= _PET_LEAST and ranges["p1"][0] >= _PET_LEAST_P1:
        return f"uptake values are not negative; the lowest value of {whose} is {_describe_range(low, high)}."
    if values["p99"] > max(_PET_FACTOR_ABOVE * ranges["p99"][1], _PET_LEAST_ABOVE):
        return _describe_too_high(values, ranges, whose)
    least, most = ranges["max"]
    if values["max"] < least / _PET_FACTOR_BELOW:
        return f"they are far too low; the highest value of {whose} is {_describe_range(least, most)}."
    return None


def find_unit(modality: str) -> str | None:
    """Return the unit of the intensities of a modality.

    Args:
        modality: The modality, spelled out, or a context prompt that names it.

    Returns:
        `HU` for computed tomography, `SUV` for positron emission tomography; None for an arbitrary or unknown scale.
    """
    return {_CT: "HU", _PET: "SUV"}.get(_find_kind(modality) or "")


def _find_kind(modality: str) -> str | None:
    """Return the modality whose rules apply; None for several modalities, or for one without an absolute scale."""
    words = modality.casefold()
    kinds = [kind for kind in (_CT, _PET, _MR) if kind in words]
    return kinds[0] if len(kinds) == 1 and "cone" not in words else None


def _fits(values: Intensities, context: Mapping[str, Any]) -> bool:
    return _find_kind(context.get("modality", "")) is not None and _find_fault(values, context) is None


def _suggest(fitting: Sequence[str], others: Mapping[str, Mapping[str, Any]]) -> str:
    """Name the contexts that fit; those with an absolute scale come first, since almost any image fits MR."""
    best = [name for name in fitting if _find_kind(others[name].get("modality", "")) != _MR] or list(fitting)
    if not best:
        return " Check the context and the unit of the image."
    listed = " or ".join(f"{name!r} ({others[name]['modality']})" for name in best)
    return f" They fit the context {listed}. Check which one is right."


def _describe_too_high(values: Intensities, ranges: Ranges, whose: str) -> str:
    low, high = ranges["p99"]
    return (
        f"they are far too high; the 99th percentile of this image is {_format(values['p99'])}, that of {whose} "
        f"{_describe_range(low, high)}."
    )


def _describe_range(low: float, high: float) -> str:
    return _format(low) if low == high else f"between {_format(low)} and {_format(high)}"


def _format(value: float) -> str:
    return f"{value:.0f}" if math.isclose(value, round(value)) or abs(value) >= 100 else f"{value:.3g}"
