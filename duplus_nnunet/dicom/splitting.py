"""Separates the slices of a series that belong to several volumes: at the same places, or in between one another."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from duplus_nnunet.dicom.headers import MARKS
from duplus_nnunet.dicom.series import Slice

# Two slices nearer than this along the normal, in mm, lie at one position.
SAME_POSITION = 5e-3
# Attributes that change what an image shows. Where slices alternate in one of them, they are of several volumes.
_CONTENT = (
    "TemporalPositionIndex", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "DiffusionBValue", "EchoTime", "EffectiveEchoTime", "EchoNumbers", "ConvolutionKernel",
)  # fmt: skip
# A number of the scanner alone. MR acquires the slices of one volume in packages that alternate; CT does not.
_ACQUISITION = "AcquisitionNumber"
_LEAST_SLICES = 3  # of a volume that lies between the slices of another one
_EVEN_STEP = 0.05  # as a part of a step


def split_volumes(modality: str, slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split slices of one grid into volumes."""
    return [part for volume in _split_times(slices) for part in _split_alternating(modality, volume)]


def describe_alternation(slices: Sequence[Slice]) -> str:
    """Say that the slices of a volume, in the order of their positions, come from several acquisitions in turn.

    Returns:
        A sentence; empty if they do not. Acquisitions of blocks of neighbouring slices, and one a slice, are usual.
    """
    for mark in (*_CONTENT, _ACQUISITION):
        values = [_read_mark(one, mark) for one in slices]
        count = len(set(values))
        changes = sum(one != other for one, other in pairwise(values))
        if 1 < count <= len(values) / 2 and changes >= count:
            return f"Its slices are of {count} acquisitions, in turn ({mark} differs); they are read as one volume."
    return ""


def count_at_one_place(slices: Iterable[Slice]) -> int:
    """Count the slices at the position that has most of them."""
    heights = np.sort([one.height for one in slices])
    places = np.concatenate([[0], np.cumsum(np.diff(heights) >= SAME_POSITION)])
    return int(np.bincount(places).max())


def _split_times(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split slices at the same positions by what tells them apart; unchanged if nothing does.

    There must be as many volumes as slices at one position: a value that each slice has for itself, such as its time,
    tells no volumes apart.
    """
    most = count_at_one_place(slices)
    if most == 1:
        return [list(slices)]
    for mark in MARKS:
        groups: dict[str, list[Slice]] = {}
        for one in slices:
            groups.setdefault(one.marks.get(mark, ""), []).append(one)
        if len(groups) == most and all(count_at_one_place(group) == 1 for group in groups.values()):
            return list(groups.values())
    return [list(slices)]


def _split_alternating(modality: str, slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split slices that lie in between one another, if each part is an even stack with larger steps than the whole."""
    for mark in (*_CONTENT, *([_ACQUISITION] if modality in ("CT", "PT") else [])):
        groups: dict[str, list[Slice]] = {}
        for one in slices:
            groups.setdefault(_read_mark(one, mark), []).append(one)
        if len(groups) > 1 and _are_alternating(list(groups.values()), slices):
            return list(groups.values())
    return [list(slices)]


def _are_alternating(groups: Sequence[Sequence[Slice]], slices: Sequence[Slice]) -> bool:
    if min(map(len, groups)) < _LEAST_SLICES:
        return False
    usual = float(np.median(np.diff(np.sort([one.height for one in slices]))))
    for group in groups:
        steps = np.diff(np.sort([one.height for one in group]))
        if np.ptp(steps) > _EVEN_STEP * np.median(steps) or np.median(steps) < 1.5 * usual:
            return False
    return True


def _read_mark(one: Slice, mark: str) -> str:
    """Return a mark in one spelling, so that 2.3 and 2.30 are equal."""
    text = one.marks.get(mark, "")
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
