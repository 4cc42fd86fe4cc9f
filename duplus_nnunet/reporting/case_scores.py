"""Scores of single cases: in come folders of predicted and true label maps, out come Dice and NSD of every target.

A target counts in a case only if it is annotated there.
"""

import math
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.grids import find_difference, last_line
from duplus_nnunet.errors import DataError
from duplus_nnunet.reporting.surfaces import Mask, find_box, measure_nsd

# mm. Fixed rather than in voxels, so that sources of different spacing and models of different plans are comparable.
TOLERANCE = 2.0

Region = tuple[int, ...]


@dataclass(frozen=True)
class LabelMaps:
    """How label maps are stored, what stands in them, and how closely surfaces have to agree.

    Attributes:
        reader: nnU-Net's image reader class.
        ending: Their file ending, such as `.nii.gz`.
        regions: Label values that make up each target, by the target's name.
        ignore: Label value of voxels that count for nothing; None if there is none.
        tolerance: Distance up to which surfaces count as agreeing, in mm.
        predicted: Those that do in the predictions, of the targets that have other values there.
    """

    reader: type
    ending: str
    regions: Mapping[str, Region]
    ignore: int | None = None
    tolerance: float = TOLERANCE
    predicted: Mapping[str, Region] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < math.inf:
            raise DataError(f"The tolerance is {self.tolerance} mm; it must be 0 or more.")


@dataclass(frozen=True)
class TargetScore:
    """Scores of one target in one case.

    Attributes:
        dice: Dice, 0 to 1, higher is better; 0 if the target was predicted where it is absent, NaN if it is neither
            there nor predicted, which is right but says nothing of an overlap.
        nsd: Normalised surface distance, in the same way.
        present: Whether the case contains the target.
        predicted: Whether it was predicted in at least one voxel.
    """

    dice: float
    nsd: float
    present: bool
    predicted: bool


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case.

    Attributes:
        source: Name of its source.
        patient: Who was imaged.
        spacing: Size of its voxels in array order, in mm.
        targets: Scores of its annotated targets by name.
    """

    source: str
    patient: str
    spacing: tuple[float, ...]
    targets: Mapping[str, TargetScore]


def score_cases(
    predictions: Path, references: Path, maps: LabelMaps, cases: Mapping[str, Case], processes: int
) -> dict[str, CaseScore]:
    """Score cases side by side, with a progress bar.

    Args:
        predictions: Folder of predicted label maps, CASE and the file ending.
        references: Folder of true ones.
        maps: How they are stored.
        cases: Cases by identifier.
        processes: How many work at once; with 1, this one does.

    Raises:
        DataError: A label map cannot be read, or the two of a case lie on different grids.
    """
    jobs = [(name, predictions, references, maps, case) for name, case in sorted(cases.items())]
    workers = min(processes, len(jobs))
    if workers <= 1:
        return dict(_show(map(_score_job, jobs), len(jobs)))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        scores = dict(_show(pool.imap_unordered(_score_job, jobs), len(jobs)))
    return {name: scores[name] for name in sorted(scores)}


def score_maps(
    prediction: NDArray[Any], reference: NDArray[Any], spacing: Sequence[float], maps: LabelMaps, targets: Iterable[str]
) -> dict[str, TargetScore]:
    """Score targets in a pair of label maps, (D, H, W), whose voxels have a spacing in mm."""
    counted = None if maps.ignore is None else reference != maps.ignore
    scores = {}
    for name in targets:
        real = _find_mask(reference, maps.regions[name], counted)
        found = _find_mask(prediction, maps.predicted.get(name, maps.regions[name]), counted)
        scores[name] = _score_masks(found, real, spacing, maps.tolerance)
    return scores


def _show(results: Iterable[tuple[str, CaseScore]], total: int) -> Iterator[tuple[str, CaseScore]]:
    yield from tqdm(results, total=total, desc="scoring", unit="case", file=sys.stderr, disable=None)


def _score_job(job: tuple[str, Path, Path, LabelMaps, Case]) -> tuple[str, CaseScore]:
    name, predictions, references, maps, case = job
    files = predictions / f"{name}{maps.ending}", references / f"{name}{maps.ending}"
    (prediction, ours), (reference, theirs) = (_read(file, maps.reader) for file in files)
    difference = find_difference(ours, prediction.shape, theirs, reference.shape)
    if difference:
        raise DataError(
            f"Case {name!r}: the prediction {files[0]} and the reference {files[1]} lie on different grids: "
            f"{difference}. Resample the prediction to the reference's grid, or predict the image that belongs to it."
        )
    spacing = tuple(float(size) for size in theirs["spacing"])
    targets = [target for target in case.annotated if target in maps.regions]
    return name, CaseScore(
        case.source, case.patient, spacing, score_maps(prediction, reference, spacing, maps, targets)
    )


def _read(file: Path, reader: type) -> tuple[NDArray[Any], Mapping[str, Any]]:
    """Read a label map, (D, H, W), and what the reader says of it."""
    try:
        labels, properties = reader().read_seg(str(file))
    except Exception as error:  # each reader has exceptions of its own for files that are no images
        raise DataError(
            f"The label map {file} cannot be read by {reader.__name__} ({last_line(error)}). Write it anew."
        ) from error
    return np.rint(labels[0]).astype(np.int32), properties


def _find_mask(labels: NDArray[Any], region: Region, counted: Mask | None) -> Mask:
    mask: Mask = labels == region[0] if len(region) == 1 else np.isin(labels, region)
    return mask if counted is None else mask & counted


def _score_masks(prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float) -> TargetScore:
    box = find_box(prediction | reference)
    if box is None:
        return TargetScore(math.nan, math.nan, present=False, predicted=False)
    found, real = prediction[box], reference[box]
    sizes = int(found.sum()), int(real.sum())
    dice = 2 * int((found & real).sum()) / sum(sizes)
    nsd = measure_nsd(found, real, spacing, tolerance) if all(sizes) else 0.0
    return TargetScore(dice, nsd, present=sizes[1] > 0, predicted=sizes[0] > 0)
