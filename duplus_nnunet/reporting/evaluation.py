"""Prepares the evaluation of a folder of predictions: finds cases, annotated targets and label values.

Names and label values come from the folder of the model or dataset; targets that were not requested are not scored.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import Case, CaseTable, read_case_table
from duplus_nnunet.data.converted_table import RECORD, read_table_by_label
from duplus_nnunet.errors import DataError, ModelError, RegistryError, describe_unknown
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_registry.dataset_labels import check_label_values
from duplus_nnunet.prompt_registry.names import is_lesion, normalise
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.reporting.aggregate import Aggregate, aggregate
from duplus_nnunet.reporting.case_scores import TOLERANCE, ScoringSettings, score_cases
from duplus_nnunet.reporting.predicted_values import NOT_TARGETS, find_predicted_values
from duplus_nnunet.reporting.validation import (
    find_tolerances,
    list_label_maps,
    make_default_table,
    read_scoring_settings,
)
from duplus_nnunet.text_files import load_json

_SHOWN = 10
NO_LESIONS = "none"


@dataclass(frozen=True)
class Request:
    """What is to be scored.

    Attributes:
        predictions: Folder of predicted label maps.
        references: Folder of reference label maps.
        home: Folder of the model or dataset; None: the dataset that the references lie in.
        labels: File with the labels of the predictions; None: the dataset.json beside them.
        tolerance: Tolerance of the normalised surface distance, in mm; None: those of the registry, else 2 mm.
        tolerances: That of single targets, in mm, by name.
        lesions: Names of the targets that are lesions; empty: those whose names say so; `none`: no target.
        allow_missing: Whether to leave out references without a prediction; otherwise they are an error.
    """

    predictions: Path
    references: Path
    home: Path | None = None
    labels: Path | None = None
    tolerance: float | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    lesions: Sequence[str] = ()
    allow_missing: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Predictions and references to score.

    Attributes:
        predictions: Folder of predicted label maps.
        references: Folder of reference label maps.
        settings: Format of the label maps, with the requested targets, and tolerance.
        cases: The cases that have a prediction and a reference.
        notes: Remarks for the reader of the scores, one sentence each.
    """

    predictions: Path
    references: Path
    settings: ScoringSettings
    cases: Mapping[str, Case]
    notes: tuple[str, ...]

    def score(self, processes: int) -> Aggregate:
        """Score all cases with a number of worker processes."""
        scores = score_cases(self.predictions, self.references, self.settings, self.cases, processes)
        return aggregate(scores, self.settings.tolerance, self.settings.tolerances)


def prepare_evaluation(request: Request) -> Evaluation:
    """Find the cases and targets to score.

    Raises:
        DataError: The folders do not match, predictions are missing, or a name is unknown.
        ModelError: The model's plans.json cannot be read.
    """
    predictions, references, home = request.predictions, request.references, request.home or _find_home(request)
    dataset_json, plans = read_dataset_json(home / "dataset.json"), read_plans(home)
    check_label_values(dataset_json.get("labels"), dataset_json.get("regions_class_order"), home / "dataset.json")
    ending = dataset_json["file_ending"]
    predicted, known = list_label_maps(predictions, ending), list_label_maps(references, ending)
    names, case_notes = _match_cases(predicted, known, (predictions, references), request.allow_missing)
    table, table_note = find_table(home, plans)
    targets = _match_targets(dataset_json, plans, table)
    if table is None:
        table = make_default_table(
            str(plans.get("dataset_name") or home.resolve().name), [name for name, _ in targets], names
        )
    values = find_predicted_values(predictions, request.labels, dataset_json["labels"], targets)
    tolerances, tolerance_notes = _find_tolerances(request, home, plans, dataset_json, values.targets)
    settings = replace(
        read_scoring_settings(
            find_reader(plans, dataset_json, references / f"{names[0]}{ending}"),
            dataset_json,
            values.targets,
            TOLERANCE if request.tolerance is None else request.tolerance,
        ),
        tolerances=tolerances,
        lesions=_find_lesions(request.lesions, values.targets),
        predicted=values.differing,
        known_predicted=values.known,
    )
    cases, unlisted_notes = _find_cases(names, table)
    if not any(target in settings.regions for case in cases.values() for target in case.annotated):
        raise DataError(
            f"None of the predicted targets ({', '.join(settings.regions)}) is annotated in any of the {len(cases)} "
            f"cases, so there is nothing to score. {table_note} Predict targets that are annotated in these cases."
        )
    notes = (table_note, *unlisted_notes, *case_notes, *values.notes, *tolerance_notes)
    return Evaluation(predictions, references, settings, cases, notes)


def _find_home(request: Request) -> Path:
    """Find the dataset that the references lie in."""
    for folder in (request.references, request.references.resolve().parent):
        if (folder / "dataset.json").is_file():
            return folder
    raise DataError(
        f"There is no dataset.json in {request.references} or the folder above it, so the meaning of the labels is not "
        "known. Give the folder of the model or dataset with -m."
    )


def _find_tolerances(
    request: Request,
    home: Path,
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    targets: Sequence[tuple[str, str]],
) -> tuple[dict[str, float], list[str]]:
    """Find the tolerances of targets that differ from that of all, in mm, with notes on their origin."""
    names = {normalise(word): name for name, label in targets for word in (label, name)}
    for name in request.tolerances:
        if normalise(name) not in names:
            raise DataError(describe_unknown("target", name, [name for name, _ in targets]))
    given = {names[normalise(name)]: tolerance for name, tolerance in request.tolerances.items()}
    if request.tolerance is not None:
        return given, []
    dataset_name = str(plans.get("dataset_name") or home.resolve().name)
    try:
        found = find_tolerances(dataset_name, dataset_json, home, targets)
    except RegistryError as error:
        return given, [f"Tolerances of the registry are not used, since its file has errors: {error}"]
    differing = {name: value for name, value in (found | given).items() if value != TOLERANCE}
    shown = ", ".join(f"{name} {value:g} mm" for name, value in differing.items())
    return differing, [f"Tolerances of the NSD that are not {TOLERANCE:g} mm: {shown}."] if differing else []


def _find_lesions(chosen: Sequence[str], targets: Sequence[tuple[str, str]]) -> frozenset[str]:
    if not chosen:
        return frozenset(name for name, label in targets if is_lesion(name) or is_lesion(label))
    names = {normalise(word): name for name, label in targets for word in (label, name)}
    if [normalise(name) for name in chosen] == [NO_LESIONS] and NO_LESIONS not in names:
        return frozenset()
    for name in chosen:
        if normalise(name) not in names:
            raise DataError(describe_unknown("target", name, [name for name, _ in targets]))
    return frozenset(names[normalise(name)] for name in chosen)


def read_plans(home: Path) -> Mapping[str, Any]:
    """Read the plans.json of a model folder; empty for a dataset folder.

    Raises:
        ModelError: It cannot be read.
    """
    file = home / "plans.json"
    try:
        plans: dict[str, Any] = load_json(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}. Export the model again.") from error
    return plans


def _match_cases(
    predicted: Sequence[str], known: Sequence[str], folders: tuple[Path, Path], allow_missing: bool
) -> tuple[list[str], list[str]]:
    """List the cases that have a prediction and a reference, with notes on the others."""
    both = sorted(set(predicted) & set(known))
    missing, extra = sorted(set(known) - set(predicted)), sorted(set(predicted) - set(known))
    if not both:
        raise DataError(
            f"No prediction in {folders[0]} has a reference in {folders[1]}: found predictions {_list_some(predicted)} "
            f"and references {_list_some(known)}. Give folders of predicted (-p) and reference label maps (-r) of the "
            "same cases."
        )
    if missing and not allow_missing:
        raise DataError(
            f"{len(missing)} of {len(known)} references in {folders[1]} have no prediction in {folders[0]}: "
            f"{', '.join(missing)}. Predict them, or leave them out with --allow-missing."
        )
    notes = []
    if missing:
        notes.append(f"{len(missing)} reference(s) without a prediction are left out: {_list_some(missing)}.")
    if extra:
        notes.append(f"{len(extra)} prediction(s) without a reference are left out: {_list_some(extra)}.")
    return both, notes


def find_table(home: Path, plans: Mapping[str, Any]) -> tuple[CaseTable | None, str]:
    """Find the case table in the folder or, for a model, in the folders of its dataset, with a note on its origin.

    Raises:
        DataError: It cannot be read.
    """
    folders = [home]
    if plans.get("dataset_name"):
        roots = [os.environ.get(name) for name in ("nnUNet_raw", "nnUNet_preprocessed")]
        folders += [Path(root) / plans["dataset_name"] for root in roots if root]
    for folder in folders:
        table = _read_table(folder, plans)
        if table is not None:
            return table, f"Annotated targets are taken from the case table in {folder}."
    folder_names = _list_some(map(str, folders))
    return None, f"No case table in {folder_names}: every target counts as annotated in every case."


def _read_table(folder: Path, plans: Mapping[str, Any]) -> CaseTable | None:
    """Read the table of a folder in the names of the plans, or else of the labels.

    That of a converted dataset is in the names of the registry. Planning writes it in those of the plans.
    """
    if not (folder / RECORD).exists():
        return read_case_table(folder)
    return None if PLANS_KEY in plans else read_table_by_label(folder)


def _match_targets(
    dataset_json: Mapping[str, Any], plans: Mapping[str, Any], table: CaseTable | None
) -> list[tuple[str, str]]:
    """Pair the target names of the case table with the labels of dataset.json."""
    if PLANS_KEY in plans:
        return [(target.name, target.label) for target in as_form(plans).targets]
    labels = [name for name in dataset_json["labels"] if name not in NOT_TARGETS]
    if table is None:
        return [(label, label) for label in labels]
    names = {name for case in [*table.cases.values(), *table.tests.values()] for name in case.annotated}
    known = {normalise(name): name for name in sorted(names)}
    pairs = [(label if label in names else known.get(normalise(label), label), label) for label in labels]
    unlabelled = sorted(names - {name for name, _ in pairs})
    if unlabelled:
        raise DataError(
            f"dataset.json has no label for the target {unlabelled[0]!r} of the case table; its labels are "
            f"{', '.join(labels)}. Give the model folder with -m, whose plans assign labels to targets."
        )
    return pairs


def _find_cases(names: Sequence[str], table: CaseTable) -> tuple[dict[str, Case], list[str]]:
    """Find cases in the table, with a note on unlisted cases, which are assigned to the source if there is only one."""
    unlisted = [name for name in names if name not in table.cases and name not in table.tests]
    if len(table.sources) > 1 or not unlisted:
        return {name: table.find(name) for name in names}, []
    [(source, description)] = table.sources.items()
    cases = {
        name: Case(source, name, description.targets, ()) if name in unlisted else table.find(name) for name in names
    }
    return cases, [
        f"{len(unlisted)} case(s) are not in the case table ({_list_some(unlisted)}): every target of its source "
        f"{source!r} counts as annotated in them."
    ]


def find_reader(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], example: Path) -> type:
    """Find nnU-Net's image reader: that of the plans, else the one that nnU-Net chooses for the dataset."""
    from nnunetv2.imageio import reader_writer_registry

    reader: type
    if "image_reader_writer" in plans:
        reader = reader_writer_registry.recursive_find_reader_writer_by_name(plans["image_reader_writer"])
    else:
        reader = reader_writer_registry.determine_reader_writer_from_dataset_json(
            dataset_json, str(example), verbose=False
        )
    return reader


def _list_some(names: Any) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (", ".join(listed[:_SHOWN]) + more) or "none"
