"""Scores the annotated targets of a validation after nnU-Net has predicted it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.prompt_registry.dataset_labels import list_declared_values
from duplus_nnunet.prompt_registry.finding import FILE_NAME as PROMPTS_NAME
from duplus_nnunet.prompt_registry.finding import find_entry
from duplus_nnunet.prompt_registry.names import is_lesion, normalise
from duplus_nnunet.reporting.aggregate import Aggregate, aggregate
from duplus_nnunet.reporting.case_scores import TOLERANCE, ScoringSettings, score_cases
from duplus_nnunet.reporting.predicted_values import read_region
from duplus_nnunet.reporting.score_files import write_scores
from duplus_nnunet.reporting.summary import correct_summary

SUMMARY_NAME = "summary.json"


def score_validation(
    predictions: str | os.PathLike[str],
    references: str | os.PathLike[str],
    settings: ScoringSettings,
    case_table: CaseTable,
    num_processes: int,
) -> Aggregate:
    """Score the annotated targets of a folder of predictions and correct its summary.json, if there is one.

    Args:
        predictions: Folder of predicted label maps; scores.json and scores.csv are written into it.
        references: Folder of reference label maps.
        settings: Format of the label maps and tolerances, from `read_scoring_settings`.
        case_table: Table of the annotated targets of each case.
        num_processes: Number of worker processes.

    Raises:
        DataError: A label map cannot be read, grids differ, or a case is not in the table.
    """
    folder = Path(predictions)
    cases = {name: case_table.find(name) for name in list_label_maps(folder, settings.ending)}
    if not cases:
        raise DataError(
            f"The folder {folder} has no prediction ending in {settings.ending!r}. Run the validation again."
        )
    scores = aggregate(score_cases(folder, Path(references), settings, cases, num_processes), settings.tolerance)
    write_scores(scores, folder)
    if (folder / SUMMARY_NAME).is_file():
        correct_summary(folder / SUMMARY_NAME, settings.regions, settings.ending, case_table)
    return scores


def read_scoring_settings(
    reader: type, dataset_json: Mapping[str, Any], targets: Sequence[tuple[str, str]], tolerance: float = TOLERANCE
) -> ScoringSettings:
    """Read label values and file ending of a dataset from its dataset.json.

    Args:
        reader: nnU-Net's image reader class.
        dataset_json: Content of dataset.json.
        targets: Pairs of target name and label in dataset.json.
        tolerance: Tolerance of the normalised surface distance, in mm.

    Raises:
        DataError: dataset.json does not have the label of a target.
    """
    labels = dataset_json["labels"]
    regions = {}
    for name, label in targets:
        if label not in labels:
            raise DataError(f"Target {name!r} in dataset.json: {describe_unknown('label', label, labels)}")
        regions[name] = read_region(labels[label])
    ignore, known = labels.get("ignore"), list_declared_values(labels)
    return ScoringSettings(
        reader,
        dataset_json["file_ending"],
        regions,
        None if ignore is None else int(ignore),
        tolerance,
        lesions=frozenset(name for name, label in targets if is_lesion(name) or is_lesion(label)),
        known=known,
        known_predicted=known,
    )


def find_tolerances(
    dataset_name: str, dataset_json: Mapping[str, Any], home: Path | None, targets: Sequence[tuple[str, str]]
) -> dict[str, float]:
    """Find the tolerances of the surface Dice that the registry gives to targets, in mm.

    Args:
        dataset_name: nnU-Net's name of the dataset.
        dataset_json: Content of dataset.json.
        home: A folder that may hold a prompts.yaml; None: the files of the registry alone.
        targets: Pairs of target name and label in dataset.json.

    Raises:
        RegistryError: A file of the registry has errors.
    """
    folder = home if home is not None and (home / PROMPTS_NAME).is_file() else None
    entry = find_entry(dataset_name, dataset_json, folder)
    known = {normalise(target.name): target.tolerance_mm for target in entry.targets if target.tolerance_mm is not None}
    return {name: float(known[normalise(name)]) for name, _ in targets if normalise(name) in known}


def list_label_maps(folder: Path, ending: str) -> list[str]:
    """List the cases that have a label map in a folder.

    Raises:
        DataError: The folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist. Give a folder of label maps CASE{ending}.")
    return sorted(file.name.removesuffix(ending) for file in folder.iterdir() if file.name.endswith(ending))


def make_default_table(source: str, targets: Sequence[str], cases: Sequence[str]) -> CaseTable:
    """Make the case table of a dataset without one: one source, one patient per case, all targets annotated."""
    plain = {name: Case(source, name, tuple(targets), ()) for name in cases}
    return CaseTable({source: Source(source, "", tuple(targets), ())}, plain)
