"""Measures the calibration of a folder of predictions from its probability maps and its predicted presence."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.case_table import Case
from duplus_nnunet.data.label_maps import read_label_map
from duplus_nnunet.errors import DataError
from duplus_nnunet.outputs.answer import Geometry
from duplus_nnunet.outputs.naming import find_case_folder
from duplus_nnunet.outputs.probabilities import ENDING, MapDescription, read_probabilities
from duplus_nnunet.outputs.statistics import JSON_NAME as STATISTICS_NAME
from duplus_nnunet.outputs.statistics import StatisticsTable
from duplus_nnunet.outputs.world import find_affine
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.progress import track
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.reporting.bootstrap import BootstrapDraws, draw_patients
from duplus_nnunet.reporting.calibration import (
    ALL_TARGETS,
    CalibrationReport,
    PresenceSample,
    TargetCalibration,
    VoxelCounter,
    VoxelCounts,
    find_neighbourhood,
    measure_presence,
    measure_reliability,
)
from duplus_nnunet.reporting.case_scores import ScoringSettings
from duplus_nnunet.reporting.evaluation import Evaluation
from duplus_nnunet.saved_predictions.host_probabilities import ENDING as HOST_ENDING
from duplus_nnunet.saved_predictions.host_probabilities import (
    HostLayout,
    read_host_layout,
    read_host_probabilities,
)

_SLAB = 16  # slices that are counted at a time
_SHOWN = 10
# In mm; headers are often rounded to four digits.
_AFFINE_TOLERANCE = 1e-2

_Counts = list[tuple[str, VoxelCounts]]


@dataclass(frozen=True)
class _Predicted:
    """What was predicted for a case.

    Attributes:
        maps: Probability maps by comparable name of their target.
        presences: Probability of presence by the same names.
        host: nnU-Net's own file of probabilities, and its channels; None: there is none, or it is not needed.
    """

    maps: Mapping[str, Path]
    presences: Mapping[str, float]
    host: tuple[Path, HostLayout] | None


@dataclass
class _Collected:
    """What was collected of one target of one source: voxel counts and presence of each image."""

    near: _Counts = field(default_factory=list)
    all: _Counts = field(default_factory=list)
    presence: list[PresenceSample] = field(default_factory=list)


def measure_calibration(evaluation: Evaluation) -> CalibrationReport:
    """Measure the calibration of annotated targets by source and target, one image after the other.

    Args:
        evaluation: Predictions and references; the folder of predictions holds probability maps (`--probabilities`, or
            nnU-Net's `--save_probabilities`), presence (`--statistics`), or both.

    Raises:
        DataError: There are neither, or a map does not lie on the grid of its reference.
    """
    presences, aliases = _read_presences(evaluation.predictions), _read_aliases(evaluation.predictions)
    collected: dict[tuple[str, str], _Collected] = {}
    without = []
    cases = evaluation.cases
    layout = read_host_layout(evaluation.predictions)
    for name, case in track(sorted(cases.items()), len(cases), "calibration", "case"):
        maps = _list_maps(find_case_folder(evaluation.predictions, name), aliases)
        archive = evaluation.predictions / f"{name}{HOST_ENDING}"
        host = (archive, layout) if layout is not None and not maps and archive.is_file() else None
        asked = presences.get(name, {})
        if not maps and host is None:
            without.append(name)
        if maps or asked or host:
            _collect_case(name, case, evaluation, _Predicted(maps, asked, host), collected)
    if not any(found.all or found.presence for found in collected.values()):
        raise DataError(
            f"{evaluation.predictions} has no probabilities of the annotated targets: expected files "
            f"CASE/TARGET{ENDING} (--probabilities), or CASE{HOST_ENDING} of nnU-Net (--save_probabilities) with its "
            "dataset.json beside it. Predict again with either, and with --statistics for the presence of targets."
        )
    patients: dict[str, set[str]] = {}
    for case in cases.values():
        patients.setdefault(case.source, set()).add(case.patient)
    rows = list(_summarise(collected, draw_patients(patients)))
    return CalibrationReport(tuple(rows), tuple(_describe(without, len(cases), collected)))


def _collect_case(
    name: str,
    case: Case,
    evaluation: Evaluation,
    predicted: _Predicted,
    collected: dict[tuple[str, str], _Collected],
) -> None:
    """Count the voxels of all annotated targets of a case, and note which of them are present."""
    settings = evaluation.settings
    file = evaluation.references / f"{name}{settings.ending}"
    label_map, properties = read_label_map(file, settings.reader, settings.known or None)
    reference = label_map.labels[0]
    host = predicted.host and read_host_probabilities(*predicted.host, file, reference.shape)
    for target in case.annotated:
        if target not in settings.regions:
            continue
        found = collected.setdefault((case.source, target), _Collected())
        truth = np.isin(reference, settings.regions[target])
        probabilities = None
        if normalise(target) in predicted.maps:
            probabilities = _read_map(predicted.maps[normalise(target)], file, truth.shape, properties)
        elif host:
            probabilities = host.read(settings.predicted.get(target, settings.regions[target]))
        if probabilities is not None:
            near, everywhere = _count(probabilities, truth, reference, properties["spacing"], settings)
            found.near.append((case.patient, near))
            found.all.append((case.patient, everywhere))
        if normalise(target) in predicted.presences:
            probability = predicted.presences[normalise(target)]
            found.presence.append(PresenceSample(case.patient, probability, bool(truth.any())))


def _count(
    probabilities: NDArray[np.float16],
    truth: NDArray[np.bool_],
    reference: NDArray[Any],
    spacing: Sequence[float],
    settings: ScoringSettings,
) -> tuple[VoxelCounts, VoxelCounts]:
    """Count voxels near the target, and all voxels; those that are not scored count in neither."""
    near = find_neighbourhood(truth | (probabilities > 0.5), [float(width) for width in spacing])
    counters = VoxelCounter(), VoxelCounter()
    for start in range(0, len(truth), _SLAB):
        part = slice(start, start + _SLAB)
        valid = np.ones(truth[part].shape, bool) if settings.ignore is None else reference[part] != settings.ignore
        for counter, chosen in zip(counters, (near[part] & valid, valid), strict=True):
            counter.add(probabilities[part][chosen], truth[part][chosen])
    return counters[0].finish(), counters[1].finish()


def _list_maps(folder: Path, aliases: Mapping[str, str]) -> dict[str, Path]:
    """List the probability maps of a case by the comparable name of their target, and of its label."""
    maps: dict[str, Path] = {}
    for file in sorted(folder.glob(f"*{ENDING}")):
        _, description = read_probabilities(file)
        target = normalise(description.target)
        maps |= {aliases.get(target, target): file, target: file}
    return maps


def _read_map(
    file: Path, reference: Path, shape: tuple[int, ...], properties: Mapping[str, Any]
) -> NDArray[np.float16]:
    array, description = read_probabilities(file)
    difference = _find_difference(description, shape, properties)
    if difference:
        raise DataError(
            f"{file} and the reference {reference} lie on different grids: {difference}. Predict the image that "
            "belongs to the reference."
        )
    probabilities: NDArray[np.float16] = np.asarray(array[:], dtype=np.float16)
    low, high = float(probabilities.min()), float(probabilities.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"{file} holds values from {low:g} to {high:g}; expected probabilities. Predict again.")
    return probabilities


def _find_difference(description: MapDescription, shape: tuple[int, ...], properties: Mapping[str, Any]) -> str:
    """Describe how the grids of a probability map and a reference differ; empty if they do not."""
    if tuple(description.shape) != tuple(shape):
        return f"shape {tuple(description.shape)} and {tuple(shape)}"
    z, y, x = (float(width) for width in properties["spacing"])
    affine = find_affine(Geometry((shape[0], shape[1], shape[2]), (z, y, x), properties))
    if affine is None or description.affine is None:
        return ""
    ours = np.vstack([np.asarray(description.affine, dtype=float)[:3], [0.0, 0.0, 0.0, 1.0]])
    if np.allclose(ours, affine, rtol=1e-3, atol=_AFFINE_TOLERANCE):
        return ""
    return f"affine {np.round(ours[:3], 3).tolist()} and {np.round(affine[:3], 3).tolist()}"


def _read_presences(folder: Path) -> dict[str, dict[str, float]]:
    """Read the predicted probability of presence by case and comparable name of the target, and of its label."""
    aliases = _read_aliases(folder)
    presences: dict[str, dict[str, float]] = {}
    for file in (folder / STATISTICS_NAME, *sorted(folder.glob(f"part_*_of_*/{STATISTICS_NAME}"))):
        for row in StatisticsTable.read(file.parent).rows:
            if row.presence is not None:
                target = normalise(row.target)
                found = presences.setdefault(row.case, {})
                found |= {aliases.get(target, target): row.presence, target: row.presence}
    return presences


def _read_aliases(folder: Path) -> dict[str, str]:
    """Map comparable names of targets to those of their labels, as the predictions' dataset.json declares them."""
    file = folder / "dataset.json"
    targets = read_dataset_json(file).get(PLANS_KEY, {}).get("targets", {}) if file.is_file() else {}
    return {normalise(name): normalise(label) for name, label in targets.items()}


def _summarise(collected: Mapping[tuple[str, str], _Collected], draws: BootstrapDraws) -> Iterable[TargetCalibration]:
    for source in sorted({source for source, _ in collected}):
        targets = {
            target: found
            for (name, target), found in sorted(collected.items())
            if name == source and (found.all or found.presence)
        }
        if len(targets) > 1:
            targets[ALL_TARGETS] = _pool(targets.values())
        for target, found in targets.items():
            yield TargetCalibration(
                source,
                target,
                measure_reliability(found.near, draws),
                measure_reliability(found.all, draws),
                measure_presence(found.presence, draws),
            )


def _pool(targets: Iterable[_Collected]) -> _Collected:
    pooled = _Collected()
    for found in targets:
        pooled.near += found.near
        pooled.all += found.all
        pooled.presence += found.presence
    return pooled


def _describe(without: Sequence[str], cases: int, collected: Mapping[tuple[str, str], _Collected]) -> Iterable[str]:
    if without:
        more = f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else ""
        listed = ", ".join(without[:_SHOWN]) + more
        yield f"{len(without)} of {cases} cases have no probability maps (--probabilities): {listed}."
    if not any(found.presence for found in collected.values()):
        yield "The presence of targets was not predicted, or not written (--statistics), so that it is not judged."
