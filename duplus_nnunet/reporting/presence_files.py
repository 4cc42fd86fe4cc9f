"""Presence on disk: in comes the evidence of a validation, out comes a calibration that travels with the model.

It stands in the validation's summary.json, under a key beside nnU-Net's own, since an exported model holds nothing else
of a validation.
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
from duplus_nnunet.reporting.case_scores import CaseScore
from duplus_nnunet.reporting.presence import Curve, PresenceCalibration, Sample, fit_curves
from duplus_nnunet.reporting.score_files import replace_file
from duplus_nnunet.reporting.summary import add_note, read_note
from duplus_nnunet.reporting.validation import SUMMARY_NAME

EVIDENCE_NAME = "evidence.json"
VERSION = 1

_PARTS = "evidence"
_KEY = "presence"
_AGAIN = "Run the validation again (nnUNetv2_train with --val)."

Evidence = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class _File:
    version: Literal[1]
    cases: dict[str, dict[str, float | None]]


_PART = TypeAdapter(dict[str, float | None])
_FILE = TypeAdapter(_File)


def write_evidence(folder: str | os.PathLike[str], case: str, found: Mapping[str, float]) -> None:
    """Write the evidence of one case, a file each, so that ranks that share the cases do not meet.

    Args:
        folder: The validation's folder.
        case: nnU-Net's case identifier.
        found: What `measure_evidence` found, by target.
    """
    parts = Path(folder, _PARTS)
    parts.mkdir(parents=True, exist_ok=True)
    plain = {target: round(value, 4) if math.isfinite(value) else None for target, value in found.items()}
    replace_file(parts / f"{case}.json", json.dumps(plain, ensure_ascii=False) + "\n")


def gather_evidence(folder: str | os.PathLike[str]) -> Evidence:
    """Put the evidence of all cases into one evidence.json and remove the single files.

    Returns:
        Evidence by case and target; None where a logit was no number.

    Raises:
        DataError: A file cannot be read.
    """
    file, parts = Path(folder, EVIDENCE_NAME), sorted(Path(folder, _PARTS).glob("*.json"))
    if not parts:
        return _read(file, _FILE).cases if file.is_file() else {}
    cases = {part.stem: _read(part, _PART) for part in parts}
    replace_file(file, json.dumps({"version": VERSION, "cases": cases}, indent=1, ensure_ascii=False) + "\n")
    shutil.rmtree(parts[0].parent)
    return cases


def calibrate_fold(
    folder: str | os.PathLike[str], scores: Mapping[str, CaseScore], held_out: Collection[str], targets: Sequence[str]
) -> str:
    """Calibrate the presence of targets on a validation and write it into its summary.json.

    Args:
        folder: The validation's folder; the evidence of its cases lies in it.
        scores: Scores of its cases, which say what is annotated in each and what is there.
        held_out: Cases that were not trained on; no other counts.
        targets: Names of all targets of the model.

    Returns:
        What was found, as a sentence for the log.

    Raises:
        DataError: The evidence or summary.json cannot be read.
    """
    evidence = gather_evidence(folder)
    kept = {case: score for case, score in scores.items() if case in held_out and case in evidence}
    samples = {target: _list_samples(evidence, kept, target) for target in targets}
    curves = fit_curves(samples)
    present = [there for many in samples.values() for _, there in many]
    counts = {"cases": len(kept), "present": sum(present), "absent": len(present) - sum(present)}
    note: dict[str, Any] = {"version": VERSION, **counts}
    if curves:
        note["targets"] = {target: asdict(curve) for target, curve in curves.items()}
    else:
        note["missing"] = _say_missing(counts)
    if Path(folder, SUMMARY_NAME).is_file():
        add_note(Path(folder, SUMMARY_NAME), _KEY, note)
    return note["missing"] if not curves else _say_curves(curves, counts)


def read_calibration(model_folder: str | os.PathLike[str], folds: Iterable[int | str]) -> PresenceCalibration:
    """Read what the presence of targets was calibrated to in a model's validations.

    Args:
        model_folder: Folder that holds plans.json and the folders of folds.
        folds: Those in use, such as (0, 1) or ("all",).

    Returns:
        The calibrated folds; its notes say why others are not, which is no error.
    """
    found, notes = [], []
    for fold in folds:
        file = Path(model_folder, f"fold_{fold}", "validation", SUMMARY_NAME)
        try:
            found.append(_read_curves(file))
        except DataError as error:
            notes.append(f"Fold {fold}: {error}")
    return PresenceCalibration(tuple(found), tuple(notes))


def _read_curves(file: Path) -> dict[str, Curve]:
    note = read_note(file, _KEY)
    if not isinstance(note, dict):
        raise DataError(f"{file} does not say what presence was calibrated to, so no presence is given. {_AGAIN}")
    if note.get("version") != VERSION:
        raise DataError(f"{file}, duplus.{_KEY} has version {note.get('version')!r}, expected {VERSION}. {_AGAIN}")
    if "missing" in note:
        raise DataError(str(note["missing"]))
    try:
        return TypeAdapter(dict[str, Curve]).validate_python(note.get("targets"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("duplus", _KEY, "targets", *first["loc"])))
        raise DataError(f"{file}, {where}: {first['msg']}. {_AGAIN}") from error


def _read(file: Path, form: TypeAdapter[Any]) -> Any:
    try:
        return form.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{file} cannot be read as evidence of presence: {error}. {_AGAIN}") from error


def _list_samples(evidence: Evidence, scores: Mapping[str, CaseScore], target: str) -> list[Sample]:
    """List evidence and truth of a target in the cases where it is annotated."""
    samples = []
    for case, score in scores.items():
        found = evidence.get(case, {}).get(target)
        if target in score.targets and found is not None:
            samples.append((found, score.targets[target].present))
    return samples


def _say_missing(counts: Mapping[str, int]) -> str:
    """Say why nothing could be calibrated."""
    if not counts["cases"]:
        reason = "there is no validation case that was not trained on"
    else:
        there, away = counts["present"], counts["absent"]
        reason = (
            f"of the annotated targets of {counts['cases']} validation case(s), {there} are present and {away} absent"
        )
    return f"The presence of targets is not calibrated, for which images with and without targets are needed: {reason}."


def _say_curves(curves: Mapping[str, Curve], counts: Mapping[str, int]) -> str:
    own = [target for target, curve in curves.items() if curve.own]
    return (
        f"The presence of targets is calibrated on {counts['cases']} validation case(s), {counts['present']} times a "
        f"target that is present and {counts['absent']} times one that is absent; with a curve of their own: "
        f"{', '.join(own) or 'none'}."
    )
