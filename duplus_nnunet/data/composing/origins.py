"""The raw datasets that are put together: what a user named goes in, what lies in their folders comes out.

Only file names, dataset.json and the prompts are read here; images and labels are not opened.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import FILE_NAME as CASE_TABLE
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.prompt_registry import Entry, find_entry
from duplus_nnunet.prompt_registry.dataset_labels import channel_names
from duplus_nnunet.prompt_registry.names import normalise, strip_dataset_number
from duplus_nnunet.prompt_registry.raw_dataset import list_images, open_raw_dataset, require_file_ending

IGNORE = "ignore"
_READERS = (None, "None", "SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")


@dataclass(frozen=True)
class CaseFiles:
    """One case's image files, in the order of the channels, and its label map if there is one."""

    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class Origin:
    """One raw dataset.

    Attributes:
        name: How it is called in case names.
        dataset: nnU-Net's name.
        folder: Where it lies.
        entry: Its prompts.
        channels: Names of its channels.
        ending: Of its image files, such as `.nii.gz`.
        reader: nnU-Net's reader that its dataset.json insists on.
        labels: Values of each label, the ignore label included.
        training: Cases of imagesTr by identifier.
        tests: Cases of imagesTs.
    """

    name: str
    dataset: str
    folder: Path
    entry: Entry
    channels: tuple[str, ...]
    ending: str
    reader: str | None
    labels: Mapping[str, tuple[int, ...]]
    training: Mapping[str, CaseFiles]
    tests: Mapping[str, CaseFiles]


def open_origins(sources: Sequence[str], spec: Spec) -> list[Origin]:
    """Open all sources, in the order given.

    Raises:
        DataError: One is missing, damaged, empty, named twice, or cannot be told apart from another.
    """
    if not sources:
        raise DataError("No source was named. Name raw datasets by number, name or folder: duplus compose ... 4 50 60")
    found = [open_raw_dataset(source) for source in sources]
    datasets = [dataset.name for dataset in found]
    twice = [name for name in datasets if datasets.count(name) > 1]
    if twice:
        raise DataError(f"The source {twice[0]!r} is named twice. Name each source once.")
    names = {find_dataset(key, datasets, "names"): name for key, name in spec.names.items()}
    origins = [
        _open(dataset.folder.absolute(), dataset.dataset_json, dataset.name, names.get(dataset.name))
        for dataset in found
    ]
    first: dict[str, str] = {}
    for origin in origins:
        other = first.setdefault(normalise(origin.name), origin.dataset)
        if other != origin.dataset:
            raise DataError(
                f"{other!r} and {origin.dataset!r} would both be called {origin.name!r}. Give one another name in the "
                f"specification: `names: {{{origin.dataset}: {origin.name}B}}`."
            )
    return origins


def find_dataset(key: int | str, datasets: Iterable[str], where: str) -> str:
    """Find the source that a key of the specification names, by number, name, or name without number.

    Raises:
        DataError: It is none of the sources.
    """
    datasets = tuple(datasets)
    for name in datasets:
        number = re.match(r"Dataset(\d+)_", name)
        if str(key).isdigit() and number is not None and int(number[1]) == int(key):
            return name
        if normalise(str(key)) in (normalise(name), normalise(strip_dataset_number(name))):
            return name
    raise DataError(f"`{where}` of the specification: {describe_unknown('source', str(key), datasets)}")


def _open(folder: Path, dataset_json: Mapping[str, Any], dataset: str, name: str | None) -> Origin:
    if (folder / CASE_TABLE).exists():
        raise DataError(f"{dataset} was composed itself. Name the datasets that it was composed of.")
    where = folder / "dataset.json"
    entry = find_entry(dataset, dataset_json, folder)
    ending, reader = require_file_ending(dataset_json, where), dataset_json.get("overwrite_image_reader_writer")
    if reader not in _READERS:
        raise DataError(
            f"{where} asks for the reader {reader!r}; images are composed if SimpleITK or nibabel reads them. "
            "Convert them to NIfTI."
        )
    channels = channel_names(dataset_json)
    if not channels:
        raise DataError(f'{where} has no "channel_names". Add them, such as {{"0": "CT"}}.')
    training = _list_cases(folder, dataset_json, ending, len(channels))
    if not training:
        raise DataError(f"{folder / 'imagesTr'} holds no image *_0000{ending}, so {dataset} has nothing to give.")
    for identifier, files in training.items():
        if files.label is None:
            raise DataError(
                f"Case {identifier!r} of {dataset} has an image, but there is no {folder / 'labelsTr' / identifier}"
                f"{ending}. Add the label map, or take the image out of imagesTr."
            )
    return Origin(
        name=name or strip_dataset_number(dataset),
        dataset=dataset,
        folder=folder,
        entry=entry,
        channels=channels,
        ending=ending,
        reader=None if reader == "None" else reader,
        labels=_read_labels(dataset_json, where),
        training=training,
        tests=_list_folder(folder, "Ts", ending, len(channels)),
    )


def _read_labels(dataset_json: Mapping[str, Any], where: Path) -> dict[str, tuple[int, ...]]:
    labels: dict[str, tuple[int, ...]] = {}
    for name, value in dataset_json["labels"].items():
        try:
            values = tuple(int(one) for one in (value if isinstance(value, list) else [value]))
        except (TypeError, ValueError) as error:
            text = f"{where}: label {name!r} has the value {value!r}; expected a whole number or a list of them."
            raise DataError(text) from error
        if 0 in values and values != (0,):
            raise DataError(f"{where}: the region {name!r} contains 0, the background. Take the 0 out.")
        if values != (0,):
            labels[str(name)] = values
    return labels


def _list_cases(folder: Path, dataset_json: Mapping[str, Any], ending: str, channels: int) -> dict[str, CaseFiles]:
    """List training cases: those that dataset.json names file by file, or else what lies in imagesTr."""
    named = dataset_json.get("dataset")
    if named is None:
        return _list_folder(folder, "Tr", ending, channels)
    cases = {}
    for identifier, files in named.items():
        images, label = tuple(folder / one for one in files["images"]), folder / files["label"]
        missing = [file for file in (*images, label) if not file.is_file()]
        if missing:
            raise DataError(f"{folder / 'dataset.json'}, case {identifier!r}: there is no {missing[0]}. Mend the path.")
        _check_channels(identifier, folder, len(images), channels)
        cases[identifier] = CaseFiles(images, label)
    return cases


def _list_folder(folder: Path, part: str, ending: str, channels: int) -> dict[str, CaseFiles]:
    cases = {}
    for identifier, files in list_images(folder / f"images{part}", ending).items():
        _check_channels(identifier, folder, len(files) if set(files) == set(range(len(files))) else -1, channels)
        label = folder / f"labels{part}" / f"{identifier}{ending}"
        cases[identifier] = CaseFiles(tuple(files.values()), label if label.is_file() else None)
    return cases


def _check_channels(identifier: str, folder: Path, found: int, expected: int) -> None:
    if found != expected:
        files = "files whose channel numbers have a gap" if found < 0 else f"{found} image file(s)"
        raise DataError(
            f"Case {identifier!r} in {folder} has {files}; dataset.json declares {expected} channel(s), from _0000 to "
            f"_{expected - 1:04}. Add what is missing, or mend dataset.json."
        )
