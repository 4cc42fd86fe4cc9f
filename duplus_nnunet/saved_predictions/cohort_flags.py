"""Finds values that are implausible within a cohort: unusual volumes, absent targets, and sides that are exchanged.

A flag asks somebody to look; it does not say that the segmentation is wrong. Images are compared within their context.

- Unusual volume: the robust z of the logarithm of the volume, (log V - median) / (1.4826 MAD), exceeds 3.5 in either
  direction. MAD is the median absolute deviation; it counts as at least 0.05, about 5 % of the volume, so that small
  differences between nearly equal volumes are not flagged. At least ten images of the context must have the target.
  Source: Iglewicz and Hoaglin 1993, How to detect and handle outliers (3.5).
- Absent: the target is absent, and present in at least 90 % of at least ten other images of the context.
- Sides: the centroid of the left one of a pair lies to the right of that of the right one; or both lie on one side,
  which is assumed if their centroids are less than half of their mean width apart.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.prompt_registry.names import find_partner, spell_out
from duplus_nnunet.saved_predictions.cohort_rows import CaseRow, TargetRow

LARGEST_Z = 3.5
LEAST_CASES = 10
LEAST_SHARE = 0.9
_LEAST_MAD = 0.05
# Of a normal distribution, the standard deviation divided by the MAD.
_MAD_TO_SD = 1.4826
_LEAST_DISTANCE = 0.5

UNUSUAL_VOLUME, ABSENT, EXCHANGED, SAME_SIDE = "unusual volume", "absent", "sides exchanged", "same side"
INTENSITIES, WARNING = "intensities", "warning"


@dataclass(frozen=True)
class Flag:
    """What is implausible about an image, or about a target in it.

    Attributes:
        case: Identifier of the case.
        target: Name of the target; empty if it is about the image.
        kind: `unusual volume`, `absent`, `sides exchanged`, `same side`, `intensities` or `warning`.
        text: A sentence.
        robust_z: Robust z of the logarithm of an unusual volume.
    """

    case: str
    target: str
    kind: str
    text: str
    robust_z: float | None = None


def find_flags(rows: Sequence[CaseRow], targets: Sequence[str]) -> list[Flag]:
    """Find what is implausible in a cohort, with the warnings that were shown when it was predicted.

    Args:
        rows: Measures of the images.
        targets: Names of all targets.
    """
    flags = []
    for row in rows:
        flags += [Flag(row.case.name, "", WARNING, text) for text in row.case.warnings]
        flags += [Flag(row.case.name, "", INTENSITIES, text) for text in row.doubts]
    pairs = find_pairs(targets)
    for row in rows:
        flags += _compare_sides(row, pairs)
    contexts: dict[str, list[CaseRow]] = {}
    for row in rows:
        contexts.setdefault(row.case.context, []).append(row)
    for group in contexts.values():
        for target in targets:
            asked = {row.case.name: row.targets[target] for row in group if target in row.targets}
            flags += [*_find_unusual_volumes(target, asked), *_find_absent(target, asked)]
    return flags


def find_pairs(targets: Sequence[str]) -> list[tuple[str, str]]:
    """List the pairs of targets that are the left and the right one of a structure.

    Example:
        >>> find_pairs(["kidney_right", "liver", "kidney_left"])
        [('kidney_left', 'kidney_right')]
    """
    names = {spell_out(target, targets): target for target in targets}
    pairs = []
    for name, target in names.items():
        partner = find_partner(name, names)
        if partner is not None and "left" in name.casefold():
            pairs.append((target, names[partner]))
    return pairs


def compute_robust_z(volumes: Iterable[float]) -> list[float]:
    """Compute the robust z of the logarithm of each volume.

    Args:
        volumes: Volumes above 0, in ml.
    """
    logs = np.log(np.fromiter(volumes, dtype=np.float64))
    distances = logs - np.median(logs)
    spread = max(float(np.median(np.abs(distances))), _LEAST_MAD)
    return [float(z) for z in distances / (_MAD_TO_SD * spread)]


def _find_unusual_volumes(target: str, asked: Mapping[str, TargetRow]) -> Iterable[Flag]:
    volumes = {case: row.volume_ml for case, row in asked.items() if row.present}
    if len(volumes) < LEAST_CASES:
        return
    median = float(np.median(list(volumes.values())))
    for (case, volume), z in zip(volumes.items(), compute_robust_z(volumes.values()), strict=True):
        if abs(z) > LARGEST_Z:
            word = "larger" if z > 0 else "smaller"
            text = (
                f"Its volume of {volume:.4g} ml is far {word} than the median of {len(volumes)} images, {median:.4g} "
                f"ml (robust z {z:+.1f})."
            )
            yield Flag(case, target, UNUSUAL_VOLUME, text, z)


def _find_absent(target: str, asked: Mapping[str, TargetRow]) -> Iterable[Flag]:
    present = sum(row.present for row in asked.values())
    others = len(asked) - 1
    if others < LEAST_CASES or present < LEAST_SHARE * others:
        return
    for case, row in asked.items():
        if not row.present:
            yield Flag(case, target, ABSENT, f"It is absent, but present in {present} of {others} other images.")


def _compare_sides(row: CaseRow, pairs: Sequence[tuple[str, str]]) -> Iterable[Flag]:
    for left, right in pairs:
        first, second = row.targets.get(left), row.targets.get(right)
        if first is None or second is None:
            continue
        distance = _subtract(second.centroid_right_mm, first.centroid_right_mm)
        width = ((first.extent_right_mm or 0.0) + (second.extent_right_mm or 0.0)) / 2
        if math.isnan(distance):
            continue
        if abs(distance) < _LEAST_DISTANCE * width:
            text = (
                f"Its centroid is only {abs(distance):.0f} mm from that of {right!r} in the left-right direction, less "
                f"than half of their mean width of {width:.0f} mm: both may lie on one side."
            )
            yield Flag(row.case.name, left, SAME_SIDE, text)
        elif distance < 0:
            text = f"It lies {-distance:.0f} mm to the patient's right of {right!r}."
            yield Flag(row.case.name, left, EXCHANGED, text)


def _subtract(first: float | None, second: float | None) -> float:
    return math.nan if first is None or second is None else first - second
