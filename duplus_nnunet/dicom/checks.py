"""Makes volumes of the slices of a series, and says what is wrong with each: what is refused, doubtful or corrected."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.dicom.series import Description, Series, Slice, Vector
from duplus_nnunet.dicom.splitting import SAME_POSITION, describe_alternation, split_volumes

READ_MODALITIES = ("CT", "MR", "PT")

# Cosines that differ by less are equal; headers round them to six digits at best, and some to four.
_SAME_DIRECTION = 1e-3
# Differences between steps, as parts of a step, below which slices are evenly spaced; and of a slice from its place on
# an even grid.
_EVEN_STEP, _EVEN_PLACE, _NOTED_PLACE = 0.05, 0.25, 0.01
# Sideways shift of a slice that does not matter, as a part of a voxel.
_SIDEWAYS = 0.1
_LARGEST_TILT = 35.0  # degrees; gantries of CT tilt up to 30
_SHOWN = 3

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PICTURES = ("MIP", "MINIP", "PROJECTION IMAGE", "SCREEN SAVE", "SCREENSHOT", "VOLUME RENDERING", "VRT", "SSD")


@dataclass(frozen=True)
class Stack:
    """How slices follow one another.

    Attributes:
        step: From one slice to the next, in mm (LPS).
        shear: Sideways shift by mm along the normal, in mm (LPS).
        refusals: Why they are no volume.
        notes: What is corrected in reading.
    """

    step: Vector
    shear: Vector
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def make_series(about: Description, slices: Sequence[Slice], reason: str = "") -> list[Series]:
    """Make the volumes of a series, those apart that differ in size, direction, spacing, or time.

    Args:
        about: What the headers say of the series.
        slices: Its slices, in any order.
        reason: Why there is none, or why some are missing; empty otherwise.
    """
    if not slices:
        return [Series(about, (), refusals=(f"{reason[0].upper()}{reason[1:]}.",))]
    unique = {(one.instance, one.frame): one for one in slices}
    copies = len(slices) - len(unique)
    notes = [f"{copies} of {len(slices)} images are copies of another one and are left out."] if copies else []
    refusals = [f"Some of its images cannot be used: {reason}."] if reason else []
    volumes = [volume for group in _group_grids(unique.values()) for volume in split_volumes(about.modality, group)]
    made = [_make_volume(about, volume, len(volumes)) for volume in volumes]
    made.sort(key=lambda one: -len(one.slices))
    started = min((one.acquired for one in unique.values() if one.acquired), default=None)
    return [
        replace(
            one,
            part=number if len(made) > 1 else 0,
            refusals=(*one.refusals, *refusals),
            notes=(*notes, *one.notes),
            started=started,
        )
        for number, one in enumerate(made, 1)
    ]


def _group_grids(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Group slices of one size, direction and spacing."""
    groups: list[list[Slice]] = []
    for one in slices:
        fitting = (group for group in groups if _has_same_grid(group[0], one))
        group = next(fitting, None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    return groups


def _has_same_grid(first: Slice, second: Slice) -> bool:
    return (
        first.shape == second.shape
        and bool(np.allclose(first.directions, second.directions, rtol=0, atol=_SAME_DIRECTION))
        and bool(np.allclose(first.spacing, second.spacing, rtol=1e-3, atol=0))
    )


def _make_volume(about: Description, slices: Sequence[Slice], volumes: int) -> Series:
    """Sort the slices of a volume, and check how they follow one another."""
    normal = slices[0].normal
    ordered = tuple(sorted(slices, key=lambda one: float(np.dot(one.position, normal))))
    refusals = [*_refuse_content(about, ordered)]
    stack = _stack(ordered)
    doubts = []
    if volumes > 1:
        doubts.append(f"It is one of {volumes} volumes of its series, which differ in time, contrast or direction.")
    if about.image_type[:1] == ("DERIVED",):
        doubts.append("It is derived from other images.")
    turns = describe_alternation(ordered)
    return Series(
        about,
        ordered,
        step=tuple(map(float, stack.step)),
        shear=tuple(map(float, stack.shear)),
        refusals=(*refusals, *stack.refusals),
        doubts=tuple(doubts),
        notes=(*stack.notes, *([turns] if turns else [])),
    )


def _refuse_content(about: Description, slices: Sequence[Slice]) -> Iterator[str]:
    """Say why the images of a series are not those of a volume, whatever their positions."""
    kinds = {value.upper() for value in about.image_type}
    if about.modality not in READ_MODALITIES:
        yield f"Its modality is {about.modality or 'not given'}; CT, MR and PT are read."
    if "LOCALIZER" in kinds:
        yield "It is a localiser."
    if about.sop_class.startswith(_SECONDARY_CAPTURE):
        yield "It is a secondary capture: a picture of a screen or a scan of paper, without values of a scanner."
    pictures = sorted(kinds & set(_PICTURES))
    if pictures:
        yield f"Its image type is {pictures[0]}: a projection or a picture of a volume, not the volume."
    directions = np.reshape(slices[0].directions, (2, 3))
    product = directions @ directions.T
    if not np.allclose(product, np.eye(2), atol=_SAME_DIRECTION):
        yield "Its ImageOrientationPatient is not made of two perpendicular unit vectors."
    if not all(np.isfinite(slices[0].spacing)) or min(slices[0].spacing) <= 0:
        yield f"Its PixelSpacing is {slices[0].spacing[0]:g} x {slices[0].spacing[1]:g}; expected sizes above 0."


def _stack(slices: Sequence[Slice]) -> Stack:
    """Find the step from slice to slice."""
    none = np.zeros(3)
    if len(slices) < 2:
        return Stack(none, none, ("It has a single slice; a volume needs two or more.",))
    places = np.array([one.position for one in slices])
    normal = slices[0].normal
    heights = places @ normal
    steps = np.diff(heights)
    if steps.min() < SAME_POSITION:
        return Stack(none, none, (_describe_duplicates(slices, steps),))
    refusal = _describe_gaps(slices, heights, steps)
    step = (heights[-1] - heights[0]) / (len(slices) - 1)
    even = heights[0] + step * np.arange(len(slices))
    off = float(np.abs(heights - even).max())
    if not refusal and off > _EVEN_PLACE * step:
        refusal = (
            f"Its slices are unevenly spaced: {steps.min():.3f} to {steps.max():.3f} mm, so that one lies {off:.2f} mm "
            "from its place on an even grid. Resample the series to even slices."
        )
    notes = []
    if not refusal and off > _NOTED_PLACE * step:
        notes.append(
            f"Positions of slices differ by up to {off:.3f} mm from an even grid of {step:.3f} mm; it is used."
        )
    shear, sideways, tilt = _measure_shear(slices, places, heights)
    if tilt:
        notes.append(tilt)
    refusals = tuple(text for text in (refusal, sideways) if text)
    return Stack(normal * step + shear * step, shear, refusals, tuple(notes))


def _describe_duplicates(slices: Sequence[Slice], steps: NDArray[np.float64]) -> str:
    alike = np.flatnonzero(steps < SAME_POSITION)
    first = slices[int(alike[0])]
    return (
        f"{len(alike)} of its {len(slices)} slices lie at the position of another one (the first at "
        f"{first.height:.2f} mm along the normal, instance number {first.number}), and nothing in the headers tells "
        "them apart. Keep one acquisition."
    )


def _describe_gaps(slices: Sequence[Slice], heights: NDArray[np.float64], steps: NDArray[np.float64]) -> str:
    """Say which slices are missing, or that steps differ; empty if they are even."""
    usual = float(np.median(steps))
    wrong = np.flatnonzero(np.abs(steps - usual) > _EVEN_STEP * usual)
    if not len(wrong):
        return ""
    ratios = steps[wrong] / usual
    whole = np.abs(ratios - np.rint(ratios)) < 2 * _EVEN_STEP * np.rint(ratios)
    if np.all(whole) and np.all(np.rint(ratios) >= 2):
        places = "; ".join(
            f"{round(steps[index] / usual) - 1} between {heights[index]:.2f} and {heights[index + 1]:.2f} mm "
            f"(instance numbers {slices[index].number} and {slices[index + 1].number})"
            for index in wrong[:_SHOWN]
        )
        more = f", and at {len(wrong) - _SHOWN} more places" if len(wrong) > _SHOWN else ""
        return f"Slices are missing: {places}{more}, along the normal. Copy the whole series."
    acquisitions = {one.marks.get("AcquisitionNumber", "") for one in slices}
    guess = f" It holds {len(acquisitions)} acquisitions." if len(acquisitions) > 1 else ""
    counted = ", ".join(
        f"{count} of {width:g} mm" for width, count in Counter(np.round(steps, 2).tolist()).most_common(_SHOWN)
    )
    return f"Its slices are unevenly spaced (steps: {counted}).{guess} Resample the series to even slices."


def _measure_shear(
    slices: Sequence[Slice], places: NDArray[np.float64], heights: NDArray[np.float64]
) -> tuple[Vector, str, str]:
    """Measure the sideways shift of slices by mm along the normal.

    Returns:
        The shift, zeros if it does not matter; why the slices are no volume; and what is corrected.
    """
    normal, none = slices[0].normal, np.zeros(3)
    rise = heights - heights[0]
    aside = places - places[0] - rise[:, None] * normal
    width = min(slices[0].spacing)
    if np.linalg.norm(aside, axis=1).max() <= _SIDEWAYS * width:
        return none, "", ""
    shear: Vector = rise @ aside / (rise @ rise)
    left = float(np.linalg.norm(aside - rise[:, None] * shear, axis=1).max())
    angle = float(np.degrees(np.arctan(np.linalg.norm(shear))))
    if left > _SIDEWAYS * width:
        return none, f"Its slices do not lie in one line: one is {left:.2f} mm beside it.", ""
    if angle > _LARGEST_TILT:
        return none, f"Its slices are shifted sideways by {angle:.1f} degrees; a gantry tilts by 30 at most.", ""
    note = (
        f"The gantry was tilted by {angle:.2f} degrees: slices are shifted in their plane by linear interpolation, so "
        "that the volume is orthogonal."
    )
    return shear, "", note
