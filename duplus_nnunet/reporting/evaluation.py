"""Scores of predictions that lie in a folder: in come folders, out comes which cases and targets are to be scored.

Names and labels come from a model's or dataset's folder; what a selection left out is not held against it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import Case, CaseTable, read_case_table
from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.reporting.aggregate import Aggregate, aggregate
from duplus_nnunet.reporting.case_scores import LabelMaps, Region, score_cases
from duplus_nnunet.reporting.validation import describe_maps, list_maps, make_plain_table, read_region

_NOT_TARGETS = ("background", "ignore")
_SHOWN = 10


@dataclass(frozen=True)
class Evaluation:
    """What is to be scored.

    Attributes:
        predictions: Folder of predicted label maps.
        references: Folder of true ones.
        maps: How they are stored, with the targets that were asked for.
        cases: The cases that have both.
        notes: What a reader of the scores has to know, a sentence each.
    """

    predictions: Path
    references: Path
    maps: LabelMaps
    cases: Mapping[str, Case]
    notes: tuple[str, ...]

    def score(self, processes: int) -> Aggregate:
        """Score all cases, several at once."""
        scores = score_cases(self.predictions, self.references, self.maps, self.cases, processes)
        return aggregate(scores, self.maps.tolerance)


def prepare(folders: tuple[Path, Path, Path], tolerance: float, allow_missing: bool) -> Evaluation:
    """Find out what is to be scored.

    Args:
        folders: Of predictions, of references, and the model's or the dataset's.
        tolerance: Of the normalised surface distance, in mm.
        allow_missing: Whether references without a prediction are left out; otherwise they are an error.

    Raises:
        DataError: Folders do not belong together, or predictions are missing.
        ModelError: The model's plans.json cannot be read.
    """
    predictions, references, home = folders
    dataset_json, plans = read_dataset_json(home / "dataset.json"), _read_plans(home)
    ending = dataset_json["file_ending"]
    names, more = _match(list_maps(predictions, ending), list_maps(references, ending), folders, allow_missing)
    table, where = _find_table(home, plans)
    targets = _name_targets(dataset_json, plans, table)
    if table is None:
        table = make_plain_table(
            str(plans.get("dataset_name") or home.resolve().name), [name for name, _ in targets], names
        )
    asked, other, left_out = _find_asked(predictions, dataset_json, targets)
    reader = _find_reader(plans, dataset_json, references / f"{names[0]}{ending}")
    maps = replace(describe_maps(reader, dataset_json, asked, tolerance), predicted=other)
    cases, unlisted = _find_cases(names, table)
    if not any(target in maps.regions for case in cases.values() for target in case.annotated):
        raise DataError(
            f"None of the predicted targets ({', '.join(maps.regions)}) is annotated in any of the {len(cases)} cases "
            f"({where}), so there is nothing to score. Predict targets that are annotated there."
        )
    return Evaluation(predictions, references, maps, cases, (where, *unlisted, *more, *left_out))


def _read_plans(home: Path) -> Mapping[str, Any]:
    """Read a model folder's plans.json; nothing for a dataset's folder."""
    file = home / "plans.json"
    try:
        plans: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}. Export the model again.") from error
    return plans


def _match(
    predicted: Sequence[str], known: Sequence[str], folders: tuple[Path, Path, Path], allow_missing: bool
) -> tuple[list[str], list[str]]:
    """List the cases that have a prediction and a reference, and say which have not."""
    both = sorted(set(predicted) & set(known))
    missing, extra = sorted(set(known) - set(predicted)), sorted(set(predicted) - set(known))
    if not both:
        raise DataError(
            f"No prediction in {folders[0]} has a reference in {folders[1]}: found {_say(predicted)} there and "
            f"{_say(known)} here. Give the folders of predicted (-p) and of true label maps (-r) of the same cases."
        )
    if missing and not allow_missing:
        raise DataError(
            f"{len(missing)} of {len(known)} references in {folders[1]} have no prediction in {folders[0]}: "
            f"{', '.join(missing)}. Predict them, or leave them out by --allow-missing."
        )
    notes = []
    if missing:
        notes.append(f"{len(missing)} reference(s) without a prediction are left out: {_say(missing)}.")
    if extra:
        notes.append(f"{len(extra)} prediction(s) without a reference are left out: {_say(extra)}.")
    return both, notes


def _find_table(home: Path, plans: Mapping[str, Any]) -> tuple[CaseTable | None, str]:
    """Find the case table in the folder or, for a model, in its dataset's folders; say where it was."""
    folders = [home]
    if plans.get("dataset_name"):
        roots = [os.environ.get(name) for name in ("nnUNet_raw", "nnUNet_preprocessed")]
        folders += [Path(root) / plans["dataset_name"] for root in roots if root]
    for folder in folders:
        table = read_case_table(folder)
        if table is not None:
            return table, f"Annotated targets by the case table in {folder}."
    return None, f"There is no case table in {_say(map(str, folders))}: every target counts as annotated in every case."


def _name_targets(
    dataset_json: Mapping[str, Any], plans: Mapping[str, Any], table: CaseTable | None
) -> list[tuple[str, str]]:
    """Pair the names of the case table with the labels of dataset.json."""
    if PLANS_KEY in plans:
        return [(target.name, target.label) for target in as_form(plans).targets]
    labels = [name for name in dataset_json["labels"] if name not in _NOT_TARGETS]
    if table is None:
        return [(label, label) for label in labels]
    names = {name for case in [*table.cases.values(), *table.tests.values()] for name in case.annotated}
    known = {normalise(name): name for name in sorted(names)}
    pairs = [(label if label in names else known.get(normalise(label), label), label) for label in labels]
    nameless = sorted(names - {name for name, _ in pairs})
    if nameless:
        raise DataError(
            f"The case table holds the target {nameless[0]!r}, for which dataset.json has no label: it has "
            f"{', '.join(labels)}. Give the model's folder with -m, whose plans say which label is which target."
        )
    return pairs


def _find_cases(names: Sequence[str], table: CaseTable) -> tuple[dict[str, Case], list[str]]:
    """Find cases in the table; those that it does not hold can only be of its one source, which has to be said."""
    unlisted = [name for name in names if name not in table.cases and name not in table.tests]
    if len(table.sources) > 1 or not unlisted:
        return {name: table.find(name) for name in names}, []
    [(source, found)] = table.sources.items()
    cases = {name: Case(source, name, found.targets, ()) if name in unlisted else table.find(name) for name in names}
    return cases, [
        f"{len(unlisted)} case(s) are not in the case table ({_say(unlisted)}): every target of its source {source!r} "
        "counts as annotated in them."
    ]


def _find_asked(
    predictions: Path, dataset_json: Mapping[str, Any], targets: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, str]], dict[str, Region], list[str]]:
    """Keep the targets that the predictions' own dataset.json says were asked for.

    Returns:
        Name and label of each, label values in the predictions of those that have others there (an adapted model gives
        the base's), and what a reader has to know.
    """
    file = predictions / "dataset.json"
    found = read_dataset_json(file) if file.is_file() else {}
    if "legend" not in found.get(PLANS_KEY, {}):
        return list(targets), {}, []
    theirs, ours = found["labels"], dataset_json["labels"]
    meant = {normalise(name): theirs[label] for name, label in found[PLANS_KEY].get("targets", {}).items()}
    values = {name: theirs.get(label, meant.get(normalise(name))) for name, label in targets}
    asked = [(name, label) for name, label in targets if values[name] is not None]
    other = {
        name: read_region(values[name])
        for name, label in asked
        if read_region(values[name]) != read_region(ours[label])
    }
    known = {*ours, *(label for label, value in theirs.items() if value in values.values())}
    new = [label for label in theirs if label not in known and label not in _NOT_TARGETS]
    unasked = [name for name, label in targets if values[name] is None]
    notes = [f"Not asked for, so not scored: {_say(unasked)}."] if unasked else []
    notes += [f"Predicted, with no reference: {_say(new)}."] if new else []
    notes += (
        [f"Other label values in the predictions than in the references, by {file}: {_say(other)}."] if other else []
    )
    return asked, other, notes


def _find_reader(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], example: Path) -> type:
    """Find nnU-Net's image reader: the plans' own, else the one that nnU-Net would choose."""
    from nnunetv2.imageio import reader_writer_registry

    found: type
    if "image_reader_writer" in plans:
        found = reader_writer_registry.recursive_find_reader_writer_by_name(plans["image_reader_writer"])
    else:
        found = reader_writer_registry.determine_reader_writer_from_dataset_json(
            dataset_json, str(example), verbose=False
        )
    return found


def _say(names: Any) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (", ".join(listed[:_SHOWN]) + more) or "none"
