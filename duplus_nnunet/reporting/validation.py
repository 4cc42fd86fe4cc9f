"""What a trainer calls once nnU-Net's validation is over: in come its folders, out come the scores that count."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.reporting.aggregate import Aggregate, aggregate
from duplus_nnunet.reporting.case_scores import TOLERANCE, LabelMaps, Region, score_cases
from duplus_nnunet.reporting.score_files import write_scores
from duplus_nnunet.reporting.summary import correct_summary

SUMMARY_NAME = "summary.json"


def score_validation(
    predictions: str | os.PathLike[str],
    references: str | os.PathLike[str],
    reader_writer: type,
    dataset_json: Mapping[str, Any],
    targets: Sequence[tuple[str, str]],
    case_table: CaseTable,
    num_processes: int,
) -> Aggregate:
    """Score the annotated targets of a folder of predictions and put its summary.json right, if there is one.

    Args:
        predictions: Folder of predicted label maps; scores.json and scores.csv are written into it.
        references: Folder of true label maps.
        reader_writer: nnU-Net's image reader class, as `PlansManager.image_reader_writer_class` gives it.
        dataset_json: Content of dataset.json.
        targets: Pairs of a target's name, as in the case table, and its label, as in dataset.json.
        case_table: Says which targets are annotated in which case.
        num_processes: How many cases are scored at once.

    Raises:
        DataError: A label map cannot be read, a grid differs, or a case is not in the table.
    """
    folder = Path(predictions)
    maps = describe_maps(reader_writer, dataset_json, targets)
    cases = {name: case_table.find(name) for name in list_maps(folder, maps.ending)}
    if not cases:
        raise DataError(
            f"The folder {folder} holds no prediction that ends in {maps.ending!r}. Run the validation again."
        )
    scores = aggregate(score_cases(folder, Path(references), maps, cases, num_processes), maps.tolerance)
    write_scores(scores, folder)
    if (folder / SUMMARY_NAME).is_file():
        correct_summary(folder / SUMMARY_NAME, maps.regions, maps.ending, case_table)
    return scores


def describe_maps(
    reader: type, dataset_json: Mapping[str, Any], targets: Sequence[tuple[str, str]], tolerance: float = TOLERANCE
) -> LabelMaps:
    """Say how the label maps of a dataset are to be read.

    Args:
        reader: nnU-Net's image reader class.
        dataset_json: Content of dataset.json.
        targets: Pairs of a target's name and its label in dataset.json.
        tolerance: Of the normalised surface distance, in mm.

    Raises:
        DataError: dataset.json has no such label.
    """
    labels = dataset_json["labels"]
    regions = {}
    for name, label in targets:
        if label not in labels:
            raise DataError(f"The target {name!r}, in dataset.json: {describe_unknown('label', label, labels)}")
        regions[name] = read_region(labels[label])
    ignore = labels.get("ignore")
    return LabelMaps(reader, dataset_json["file_ending"], regions, None if ignore is None else int(ignore), tolerance)


def read_region(value: Any) -> Region:
    """Read what dataset.json says of a label: one value, or several."""
    return tuple(int(part) for part in value) if isinstance(value, (list, tuple)) else (int(value),)


def list_maps(folder: Path, ending: str) -> list[str]:
    """List the cases whose label maps lie in a folder.

    Raises:
        DataError: There is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Give the folder of label maps, CASE{ending}.")
    return sorted(file.name.removesuffix(ending) for file in folder.iterdir() if file.name.endswith(ending))


def make_plain_table(source: str, targets: Sequence[str], cases: Sequence[str]) -> CaseTable:
    """Make the table of a dataset that has none: one source, each case a patient, all targets annotated."""
    plain = {name: Case(source, name, tuple(targets), ()) for name in cases}
    return CaseTable({source: Source(source, "", tuple(targets), ())}, plain)
