"""Finds the label values of targets in predictions, which may come from any program."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_registry.dataset_labels import check_label_values, list_declared_values
from duplus_nnunet.prompt_registry.names import normalise, spell_out
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json

NOT_TARGETS = ("background", "ignore")
_SHOWN = 10

Region = tuple[int, ...]


@dataclass(frozen=True)
class PredictedValues:
    """Label values of targets in predictions.

    Attributes:
        targets: Name and label in the references of each target that was predicted.
        differing: Values of those whose values differ from those in the references.
        known: All values that a prediction may hold; empty: any.
        notes: Remarks for the reader of the scores, one sentence each.
    """

    targets: Sequence[tuple[str, str]]
    differing: Mapping[str, Region] = field(default_factory=dict)
    known: frozenset[int] = frozenset()
    notes: Sequence[str] = ()


def find_predicted_values(
    predictions: Path, file: Path | None, labels: Mapping[str, Any], targets: Sequence[tuple[str, str]]
) -> PredictedValues:
    """Find which targets were predicted, and with which values.

    Args:
        predictions: Folder of predictions, whose dataset.json says so if there is one.
        file: File with the labels of the predictions that is used instead: a dataset.json, a JSON object of names and
            values, or one of values and names, as programs for whole bodies document their classes. None to use the
            former.
        labels: Labels of the references, as in dataset.json.
        targets: Pairs of target name and label in the references.

    Raises:
        DataError: The file cannot be read, or no target is among its labels.
    """
    declared = list_declared_values(labels)
    given = file or predictions / "dataset.json"
    if not given.is_file() and file is None:
        return PredictedValues(targets, known=declared)
    content = read_labels(given)
    if file is not None:
        check_label_values(content["labels"], None, file, ordered=False)
    known = declared | list_declared_values(content["labels"])
    if file is None and "legend" not in content.get(PLANS_KEY, {}) and not _share_names(content["labels"], targets):
        note = f"No label in {given} has the name of a target: predictions count as having the references' values."
        return PredictedValues(targets, known=known, notes=[note])
    found = _match(content, labels, targets)
    if not found.targets:
        listed = _list_some(name for name in content["labels"] if name not in NOT_TARGETS)
        raise DataError(
            f"{given}: none of the targets ({_list_some(name for name, _ in targets)}) is among its labels: {listed}. "
            "Give the labels of the predictions with --labels, or the model or dataset that belongs to them with -m."
        )
    notes = [*found.notes]
    if found.differing:
        notes.append(
            f"Label values differ between predictions and references, see {given}: {_list_some(found.differing)}."
        )
    return PredictedValues(found.targets, found.differing, known, notes)


def read_region(value: Any) -> Region:
    """Convert the value of a label in dataset.json, a number or several, to a tuple."""
    return tuple(int(part) for part in value) if isinstance(value, (list, tuple)) else (int(value),)


def read_labels(file: Path) -> dict[str, Any]:
    """Read a file of labels: a dataset.json, or names and values, or values and names, which become `labels` of one.

    Raises:
        DataError: The file cannot be read.
    """
    content = read_dataset_json(file)
    return content if "labels" in content else {"labels": _turn(content)}


def _turn(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Turn an object of values and names into one of names and values, with a background."""
    turned = content
    if content and all(re.fullmatch(r"\d+", key) and isinstance(name, str) for key, name in content.items()):
        turned = {name: int(key) for key, name in content.items()}
    return turned if "background" in turned or 0 in turned.values() else {"background": 0, **turned}


def _share_names(predicted: Mapping[str, Any], targets: Iterable[tuple[str, str]]) -> bool:
    known = {normalise(name) for name in predicted if name not in NOT_TARGETS}
    return any({normalise(name), normalise(label)} & known for name, label in targets)


def _match(
    content: Mapping[str, Any], reference: Mapping[str, Any], targets: Sequence[tuple[str, str]]
) -> PredictedValues:
    predicted: Mapping[str, Any] = content["labels"]
    spelled = {normalise(spell_out(label, tuple(predicted))): value for label, value in predicted.items()}
    spelled |= {normalise(label): value for label, value in predicted.items()}
    named = {normalise(name): predicted[label] for name, label in content.get(PLANS_KEY, {}).get("targets", {}).items()}
    by_name = spelled | named
    values = {
        name: predicted.get(label, by_name.get(normalise(name), by_name.get(normalise(label))))
        for name, label in targets
    }
    requested = [(name, label) for name, label in targets if values[name] is not None]
    differing = {
        name: read_region(values[name])
        for name, label in requested
        if read_region(values[name]) != read_region(reference[label])
    }
    known = {*reference, *(label for label, value in predicted.items() if value in values.values())}
    new = [label for label in predicted if label not in known and label not in NOT_TARGETS]
    absent = [name for name, _ in targets if values[name] is None]
    notes = [f"Not requested, so not scored: {_list_some(absent)}."] if absent else []
    notes += [f"Predicted, without a reference: {_list_some(new)}."] if new else []
    return PredictedValues(requested, differing, notes=notes)


def _list_some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (", ".join(listed[:_SHOWN]) + more) or "none"
