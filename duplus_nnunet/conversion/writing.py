"""Writes the raw dataset of a download: images, label maps, dataset.json, folds by patient, a record of changes."""

import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet import __version__
from duplus_nnunet.conversion.cases import write_cases
from duplus_nnunet.conversion.clinical import write_clinical
from duplus_nnunet.conversion.finding import Download
from duplus_nnunet.conversion.loading import ENDING, ConversionJob, ConvertedCase, convert_case, list_jobs
from duplus_nnunet.conversion.recipe import Recipe
from duplus_nnunet.conversion.splits import make_splits
from duplus_nnunet.data.composing.splits import FILE_NAME as SPLITS
from duplus_nnunet.data.composing.write import open_new_folder
from duplus_nnunet.data.converted_table import RECORD
from duplus_nnunet.errors import DataError
from duplus_nnunet.files import write_text


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote.

    Attributes:
        folder: The raw dataset.
        cases: What came of each case.
        targets: By label, in how many training cases it is.
        tables: What was written of the tables of cases and patients, a sentence each.
    """

    folder: Path
    cases: tuple[ConvertedCase, ...]
    targets: Mapping[str, int]
    tables: tuple[str, ...] = ()

    @property
    def failed(self) -> list[ConvertedCase]:
        """The cases that could not be converted."""
        return [case for case in self.cases if case.problem]


def convert(
    name: str, recipe: Recipe, download: Download, folder: Path, processes: int, update: Callable[[], object]
) -> Conversion:
    """Write the raw dataset of a download; it is there only when it is whole.

    Cases that cannot be converted are left out and reported.

    Args:
        name: Name of the recipe, for the record.
        recipe: The recipe.
        download: What was found.
        folder: The dataset's folder, which must not exist yet.
        processes: Number of worker processes; with one, no process is started.
        update: Called after each case.

    Raises:
        DataError: The folder exists, or cannot be written, or no training case could be converted.
    """
    if folder.exists():
        raise DataError(f"{folder} exists. Choose another number with -d, or remove it.")
    with open_new_folder(folder) as new:
        for end in {"Ts" if case.group.test else "Tr" for case in download.cases}:
            (new / f"images{end}").mkdir()
            (new / f"labels{end}").mkdir()
        done = list(_run(list_jobs(recipe, download, new), processes, update))
        converted = {case.name for case in done if not case.problem}
        training = [case for case in download.cases if not case.group.test and case.name in converted]
        if not training:
            raise DataError(f"No training case could be converted. {done[0].problem if done else ''}".strip())
        dataset_json = _describe_dataset(recipe, len(training))
        _write_json(new / "dataset.json", dataset_json)
        written = [case for case in download.cases if case.name in converted]
        table = write_cases(recipe, folder.name, dataset_json, written, done, new)
        clinical = [] if recipe.clinical is None else write_clinical(recipe.clinical, download.root, new)
        splits, note = make_splits(recipe, download.root, training)
        if splits is not None:
            _write_json(new / SPLITS, splits)
        _write_json(
            new / RECORD, _describe_conversion(name, recipe, download, done) | {"clinical": clinical, "folds": note}
        )
        if not any((new / "labelsTs").glob("*")) and (new / "labelsTs").is_dir():
            (new / "labelsTs").rmdir()
    trained = {case.name for case in training}
    counts = Counter(label for case in done if case.name in trained for label in case.present)
    return Conversion(
        folder,
        tuple(done),
        {label: counts[label] for label in recipe.labels},
        (table, *filter(None, (note,)), *clinical),
    )


def _run(jobs: Sequence[ConversionJob], processes: int, update: Callable[[], object]) -> Iterator[ConvertedCase]:
    if processes < 2:
        for job in jobs:
            yield convert_case(job)
            update()
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for case in pool.map(convert_case, jobs, chunksize=1):
            yield case
            update()


def _describe_dataset(recipe: Recipe, training: int) -> dict[str, Any]:
    numbers = {name: number for number, name in enumerate(recipe.labels, start=1)}
    regions = {name: [numbers[label] for label in labels] for name, labels in recipe.regions.items()}
    content: dict[str, Any] = {
        "channel_names": {str(number): channel for number, channel in enumerate(recipe.channels)},
        "labels": {"background": 0, **(regions or numbers)},
        "numTraining": training,
        "file_ending": ENDING,
        "reference": recipe.source,
        "licence": recipe.licence,
    }
    if recipe.class_order is not None:
        content["regions_class_order"] = recipe.class_order
    if recipe.reader is not None:
        content["overwrite_image_reader_writer"] = recipe.reader
    return content


def _describe_conversion(
    name: str, recipe: Recipe, download: Download, done: Sequence[ConvertedCase]
) -> dict[str, Any]:
    notes = {case.name: list(case.notes) for case in done if case.notes}
    for case, note in recipe.notes.items():
        if case in {case.name for case in done}:
            notes.setdefault(case, []).append(note)
    return {
        "recipe": name,
        "version": __version__,
        "title": recipe.title,
        "source": recipe.source,
        "licence": recipe.licence,
        "layout": download.layout.name,
        "problems": list(download.problems),
        "left_out": {case.name: case.problem for case in done if case.problem},
        "notes": notes,
        "patients": {case.name: case.patient for case in download.cases if case.patient != case.name},
    }


def _write_json(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content, indent=1) + "\n")
