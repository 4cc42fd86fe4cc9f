"""Stores the peak logits of a validation, and the presence calibration fitted to them.

The calibration is stored in the validation's summary.json, under a key beside nnU-Net's own, since this is the only
file of a validation in an exported model.
"""

import json
import math
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.presence import PlattScaling, PresenceCalibration, Sample, fit_platt_scaling
from duplus_nnunet.reporting.summary import add_note, read_note
from duplus_nnunet.reporting.validation import SUMMARY_NAME

PEAK_LOGITS_NAME = "evidence.json"
VERSION = 1

_PARTS = "evidence"  # folder of files of single cases
_KEY = "presence"
_ADVICE = "Run the validation again (nnUNetv2_train with --val)."

PeakLogits = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class _File:
    version: Literal[1]
    cases: dict[str, dict[str, float | None]]


_PART = TypeAdapter(dict[str, float | None])
_FILE = TypeAdapter(_File)


def write_peak_logits(folder: str | os.PathLike[str], case: str, peak_logits: Mapping[str, float]) -> None:
    """Write the peak logits of one case to a file of its own, so that parallel ranks do not write the same file.

    Args:
        folder: Folder of the validation.
        case: nnU-Net's case identifier.
        peak_logits: Peak logits by target, as from `compute_peak_logits`.
    """
    parts = Path(folder, _PARTS)
    parts.mkdir(parents=True, exist_ok=True)
    plain = {target: round(value, 4) if math.isfinite(value) else None for target, value in peak_logits.items()}
    write_text(parts / f"{case}.json", json.dumps(plain, ensure_ascii=False) + "\n")


def gather_peak_logits(folder: str | os.PathLike[str]) -> PeakLogits:
    """Merge the peak logits of all cases into evidence.json and remove the files of single cases.

    Returns:
        Peak logits by case and target; None for non-finite values.

    Raises:
        DataError: A file cannot be read.
    """
    file, parts = Path(folder, PEAK_LOGITS_NAME), sorted(Path(folder, _PARTS).glob("*.json"))
    if not parts:
        return _read(file, _FILE).cases if file.is_file() else {}
    cases = {part.stem: _read(part, _PART) for part in parts}
    write_text(file, json.dumps({"version": VERSION, "cases": cases}, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(parts[0].parent)
    return cases


def calibrate_fold(
    folder: str | os.PathLike[str], scores: Mapping[str, CaseScore], held_out: Collection[str], targets: Sequence[str]
) -> str:
    """Calibrate target presence on the cases of a validation and add the result to its summary.json.

    Args:
        folder: Folder of the validation, with the peak logits of its cases.
        scores: Scores of the cases, with annotated and present targets.
        held_out: Cases that were not used in training; other cases are ignored.
        targets: Names of all targets of the model.

    Returns:
        A summary sentence for the log.

    Raises:
        DataError: The peak logits or summary.json cannot be read.
    """
    peak_logits = gather_peak_logits(folder)
    kept = {case: score for case, score in scores.items() if case in held_out and case in peak_logits}
    samples = {target: _list_samples(peak_logits, kept, target) for target in targets}
    fits = fit_platt_scaling(samples)
    labels = [present for target_samples in samples.values() for _, present in target_samples]
    counts = {"cases": len(kept), "present": sum(labels), "absent": len(labels) - sum(labels)}
    note: dict[str, Any] = {"version": VERSION, **counts}
    if fits:
        note["targets"] = {target: asdict(fit) for target, fit in fits.items()}
    else:
        note["missing"] = _describe_missing(counts)
    if Path(folder, SUMMARY_NAME).is_file():
        add_note(Path(folder, SUMMARY_NAME), _KEY, note)
    return note["missing"] if not fits else _describe_fits(fits, counts)


def read_calibration(model_folder: str | os.PathLike[str], folds: Iterable[int | str]) -> PresenceCalibration:
    """Read the presence calibration of a model from the summaries of its validations.

    Args:
        model_folder: Folder with plans.json and the fold folders.
        folds: Folds in use, such as (0, 1) or ("all",).

    Returns:
        The calibration of the calibrated folds; its notes explain why other folds have none, which is no error.
    """
    calibrated, notes = [], []
    for fold in folds:
        file = Path(model_folder, f"fold_{fold}", "validation", SUMMARY_NAME)
        try:
            calibrated.append(_read_fits(file))
        except DataError as error:
            notes.append(f"Fold {fold}: {error}")
    return PresenceCalibration(tuple(calibrated), tuple(notes))


def _read_fits(file: Path) -> dict[str, PlattScaling]:
    note = read_note(file, _KEY)
    if not isinstance(note, dict):
        raise DataError(f"{file} has no presence calibration, so that no presence is predicted. {_ADVICE}")
    if note.get("version") != VERSION:
        raise DataError(f"{file}, duplus.{_KEY} has version {note.get('version')!r}, expected {VERSION}. {_ADVICE}")
    if "missing" in note:
        raise DataError(str(note["missing"]))
    try:
        return TypeAdapter(dict[str, PlattScaling]).validate_python(note.get("targets"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("duplus", _KEY, "targets", *first["loc"])))
        raise DataError(f"{file}, {where}: {first['msg']}. {_ADVICE}") from error


def _read(file: Path, form: TypeAdapter[Any]) -> Any:
    try:
        return form.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{file} cannot be read as peak logits: {error}. {_ADVICE}") from error


def _list_samples(peak_logits: PeakLogits, scores: Mapping[str, CaseScore], target: str) -> list[Sample]:
    """List peak logit and truth of a target in the cases in which it is annotated."""
    samples = []
    for case, score in scores.items():
        peak_logit = peak_logits.get(case, {}).get(target)
        if target in score.targets and peak_logit is not None:
            samples.append((peak_logit, score.targets[target].present))
    return samples


def _describe_missing(counts: Mapping[str, int]) -> str:
    """Explain why presence could not be calibrated."""
    if not counts["cases"]:
        reason = "there is no held-out validation case"
    else:
        reason = (
            f"of the annotated targets of {counts['cases']} validation case(s), {counts['present']} are present and "
            f"{counts['absent']} absent"
        )
    return f"Target presence is not calibrated, since this needs images with and without targets: {reason}."


def _describe_fits(fits: Mapping[str, PlattScaling], counts: Mapping[str, int]) -> str:
    own = [target for target, fit in fits.items() if fit.own]
    return (
        f"Target presence is calibrated on {counts['cases']} validation case(s) with {counts['present']} present and "
        f"{counts['absent']} absent targets; calibrated individually: {', '.join(own) or 'none'}."
    )
