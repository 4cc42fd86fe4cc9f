"""Reads pairs of label maps, and scores every annotated target of each case."""

import math
import multiprocessing
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.grids import find_difference
from duplus_nnunet.data.label_maps import describe_rounding, read_label_map
from duplus_nnunet.errors import DataError
from duplus_nnunet.progress import track
from duplus_nnunet.reporting.surfaces import Mask
from duplus_nnunet.reporting.target_scores import TargetScore, score_masks

# In mm rather than voxels, so that sources of different spacing and models of different plans are comparable.
TOLERANCE = 2.0

Region = tuple[int, ...]


@dataclass(frozen=True)
class ScoringSettings:
    """Format of the label maps, and tolerance of the surface distance.

    Attributes:
        reader: nnU-Net's image reader class.
        ending: File ending of the label maps, such as `.nii.gz`.
        regions: Label values of each target in the references, by name of the target.
        ignore: Label value of voxels that are not scored; None if there is none.
        tolerance: Tolerance of the normalised surface distance, in mm.
        tolerances: That of single targets, in mm, where it differs.
        lesions: Targets that are lesions, whose connected components are counted.
        predicted: Label values in the predictions, of the targets whose values differ from those in the references.
        known: All values that a reference may hold; empty: any whole value.
        known_predicted: All values that a prediction may hold; empty: any whole value.
    """

    reader: type
    ending: str
    regions: Mapping[str, Region]
    ignore: int | None = None
    tolerance: float = TOLERANCE
    tolerances: Mapping[str, float] = field(default_factory=dict)
    lesions: frozenset[str] = frozenset()
    predicted: Mapping[str, Region] = field(default_factory=dict)
    known: frozenset[int] = frozenset()
    known_predicted: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for tolerance in (self.tolerance, *self.tolerances.values()):
            if not 0 <= tolerance < math.inf:
                raise DataError(f"The tolerance is {tolerance} mm, expected a finite number of 0 or more.")


@dataclass(frozen=True)
class CaseScore:
    """Scores of one case.

    Attributes:
        source: Name of the source.
        patient: Identifier of the patient.
        spacing: Voxel size in array order, in mm.
        targets: Scores of the annotated targets by name.
        rounded: Number of voxels of prediction and reference whose value was not whole.
    """

    source: str
    patient: str
    spacing: tuple[float, ...]
    targets: Mapping[str, TargetScore]
    rounded: int = 0


def score_cases(
    predictions: Path, references: Path, settings: ScoringSettings, cases: Mapping[str, Case], processes: int
) -> dict[str, CaseScore]:
    """Score cases in parallel, with a progress bar.

    Args:
        predictions: Folder of predicted label maps, named CASE plus the file ending.
        references: Folder of reference label maps, with the same names.
        settings: Format of the label maps, and tolerance.
        cases: Cases by identifier.
        processes: Number of worker processes; 1 uses the current process.

    Raises:
        DataError: A label map cannot be read or holds a value that is not whole or not declared, or prediction and
            reference lie on different grids.
    """
    jobs = [(name, predictions, references, settings, case) for name, case in sorted(cases.items())]
    workers = min(processes, len(jobs))
    if workers <= 1:
        scores = dict(track(map(_score_job, jobs), len(jobs), "scoring", "case"))
    else:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            scores = dict(track(pool.imap_unordered(_score_job, jobs), len(jobs), "scoring", "case"))
    note = describe_rounding({name: score.rounded for name, score in sorted(scores.items())})
    if note:
        sys.stderr.write(f"note: {note}\n")
    return {name: scores[name] for name in sorted(scores)}


def score_maps(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing: Sequence[float],
    settings: ScoringSettings,
    targets: Iterable[str],
) -> dict[str, TargetScore]:
    """Score targets in a pair of label maps.

    Args:
        prediction: Predicted label map, (D, H, W).
        reference: Reference label map of the same shape.
        spacing: Voxel size along these axes, in mm.
        settings: Label values and tolerance.
        targets: Names of the targets to score.
    """
    valid = None if settings.ignore is None else reference != settings.ignore
    scores = {}
    for name in targets:
        true_mask = _extract_mask(reference, settings.regions[name], valid)
        values = settings.predicted.get(name, settings.regions[name])
        predicted_mask = _extract_mask(prediction, values, valid)
        tolerance = settings.tolerances.get(name, settings.tolerance)
        scores[name] = score_masks(predicted_mask, true_mask, spacing, tolerance, name in settings.lesions)
    return scores


def _score_job(job: tuple[str, Path, Path, ScoringSettings, Case]) -> tuple[str, CaseScore]:
    name, predictions, references, settings, case = job
    files = predictions / f"{name}{settings.ending}", references / f"{name}{settings.ending}"
    prediction, properties, rounded = _read(files[0], settings.reader, settings.known_predicted)
    reference, expected, others = _read(files[1], settings.reader, settings.known)
    difference = find_difference(properties, prediction.shape, expected, reference.shape)
    if difference:
        raise DataError(
            f"Case {name!r}: the prediction {files[0]} and the reference {files[1]} lie on different grids: "
            f"{difference}. Resample the prediction to the reference's grid, or predict the image that belongs to it."
        )
    spacing = tuple(float(size) for size in expected["spacing"])
    targets = [target for target in case.annotated if target in settings.regions]
    return name, CaseScore(
        case.source,
        case.patient,
        spacing,
        score_maps(prediction, reference, spacing, settings, targets),
        rounded + others,
    )


def _read(file: Path, reader: type, known: frozenset[int]) -> tuple[NDArray[Any], Mapping[str, Any], int]:
    """Read a label map, (D, H, W), its image properties, and the number of voxels that were rounded."""
    label_map, properties = read_label_map(file, reader, known or None)
    return label_map.labels[0].astype(np.int32), properties, label_map.rounded


def _extract_mask(labels: NDArray[Any], region: Region, valid: Mask | None) -> Mask:
    mask: Mask = labels == region[0] if len(region) == 1 else np.isin(labels, region)
    return mask if valid is None else mask & valid
