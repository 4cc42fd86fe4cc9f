"""Opens the raw datasets to compose: reads dataset.json, prompts and file names, but no image or label map."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import Case, CaseTable
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.data.converted_table import is_composed, read_raw_table
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.prompt_registry import Entry, find_entry
from duplus_nnunet.prompt_registry.dataset_labels import channel_names, check_label_values
from duplus_nnunet.prompt_registry.names import normalise, strip_dataset_number
from duplus_nnunet.prompt_registry.raw_dataset import list_images, open_raw_dataset, require_file_ending

IGNORE = "ignore"
_READERS = (None, "None", "SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")


@dataclass(frozen=True)
class CaseFiles:
    """Image files of a case, in the order of the channels, and its label map, if it has one."""

    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class SourceDataset:
    """One raw dataset.

    Attributes:
        name: Its name in the case identifiers of the composed dataset.
        dataset: nnU-Net's name of it.
        folder: Its folder.
        entry: Its prompts.
        channels: Names of its channels.
        ending: Ending of its image files, such as `.nii.gz`.
        reader: The reader that dataset.json requires, None if it requires none.
        labels: Values of each label, the ignore label included.
        training: Cases of imagesTr by identifier.
        tests: Cases of imagesTs by identifier.
        known: What the table of a converted dataset says of each case, by identifier.
        contexts: Context of each of these cases.
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
    known: Mapping[str, Case] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)


def open_source_datasets(names: Sequence[str], spec: Spec) -> list[SourceDataset]:
    """Open all sources, in the order given.

    Raises:
        DataError: A source is missing, damaged, empty or named twice, or two sources would have the same name.
    """
    if not names:
        raise DataError("No source was named. Name raw datasets by number, name or folder: duplus compose ... 4 50 60")
    raw_datasets = [open_raw_dataset(name) for name in names]
    datasets = [raw.name for raw in raw_datasets]
    repeated = [name for name in datasets if datasets.count(name) > 1]
    if repeated:
        raise DataError(f"The source {repeated[0]!r} is named twice. Name each source once.")
    short_names = {find_dataset(key, datasets, "names"): name for key, name in spec.names.items()}
    regions = {find_dataset(key, datasets, "regions"): tuple(levels) for key, levels in spec.regions.items()}
    sources = [
        _set_regions(_open(raw.folder.absolute(), raw.dataset_json, raw.name, short_names.get(raw.name)), regions)
        for raw in raw_datasets
    ]
    first: dict[str, str] = {}
    for source in sources:
        other = first.setdefault(normalise(source.name), source.dataset)
        if other != source.dataset:
            raise DataError(
                f"{other!r} and {source.dataset!r} would both be called {source.name!r}. Give one another name in the "
                f"specification: `names: {{{source.dataset}: {source.name}B}}`."
            )
    return sources


def find_dataset(key: int | str, datasets: Iterable[str], where: str) -> str:
    """Find the source that a key of the specification refers to: by number, name, or name without its number.

    Raises:
        DataError: The key refers to none of the sources.
    """
    datasets = tuple(datasets)
    for name in datasets:
        number = re.match(r"Dataset(\d+)_", name)
        if str(key).isdigit() and number is not None and int(number[1]) == int(key):
            return name
        if normalise(str(key)) in (normalise(name), normalise(strip_dataset_number(name))):
            return name
    raise DataError(f"`{where}` of the specification: {describe_unknown('source', str(key), datasets)}")


def _set_regions(source: SourceDataset, regions: Mapping[str, tuple[str, ...]]) -> SourceDataset:
    """Set the regions of a source's contexts if some are given for it."""
    if source.dataset not in regions:
        return source
    contexts = source.entry.contexts.items()
    changed = {key: replace(context, regions=regions[source.dataset]) for key, context in contexts}
    return replace(source, entry=replace(source.entry, contexts=changed))


def _open(folder: Path, dataset_json: Mapping[str, Any], dataset: str, name: str | None) -> SourceDataset:
    if is_composed(folder):
        raise DataError(f"{dataset} is itself a composed dataset. Name the datasets that it was composed of.")
    where = folder / "dataset.json"
    entry = find_entry(dataset, dataset_json, folder)
    ending, reader = require_file_ending(dataset_json, where), dataset_json.get("overwrite_image_reader_writer")
    if reader not in _READERS:
        raise DataError(
            f"{where} requires the reader {reader!r}; images can be composed only if SimpleITK or nibabel reads them. "
            "Convert them to NIfTI."
        )
    channels = channel_names(dataset_json)
    if not channels:
        raise DataError(f'{where} has no "channel_names". Add them, such as {{"0": "CT"}}.')
    training = _list_cases(folder, dataset_json, ending, len(channels))
    if not training:
        raise DataError(f"{folder / 'imagesTr'} holds no image *_0000{ending}. {dataset} needs training cases.")
    for identifier, files in training.items():
        if files.label is None:
            raise DataError(
                f"Case {identifier!r} of {dataset} has an image, but there is no {folder / 'labelsTr' / identifier}"
                f"{ending}. Add the label map, or take the image out of imagesTr."
            )
    table = read_raw_table(folder, entry, dataset_json, training.keys()) or CaseTable({}, {})
    known = {**table.tests, **table.cases}
    return SourceDataset(
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
        known=known,
        contexts={identifier: table.sources[case.source].context for identifier, case in known.items()},
    )


def _read_labels(dataset_json: Mapping[str, Any], where: Path) -> dict[str, tuple[int, ...]]:
    check_label_values(dataset_json["labels"], dataset_json.get("regions_class_order"), where, ordered=False)
    values = {
        str(name): tuple(value) if isinstance(value, list) else (value,)
        for name, value in dataset_json["labels"].items()
    }
    return {name: members for name, members in values.items() if members != (0,)}


def _list_cases(folder: Path, dataset_json: Mapping[str, Any], ending: str, channels: int) -> dict[str, CaseFiles]:
    """List the training cases: those that dataset.json lists file by file, or else those in imagesTr."""
    listed = dataset_json.get("dataset")
    if listed is None:
        return _list_folder(folder, "Tr", ending, channels)
    cases = {}
    for identifier, files in listed.items():
        images, label = tuple(folder / image for image in files["images"]), folder / files["label"]
        missing = [file for file in (*images, label) if not file.is_file()]
        if missing:
            raise DataError(
                f"{folder / 'dataset.json'}, case {identifier!r}: there is no {missing[0]}. Correct the path."
            )
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


def _check_channels(identifier: str, folder: Path, count: int, expected: int) -> None:
    if count != expected:
        files = "files whose channel numbers have a gap" if count < 0 else f"{count} image file(s)"
        raise DataError(
            f"Case {identifier!r} in {folder} has {files}; dataset.json declares {expected} channel(s), from _0000 to "
            f"_{expected - 1:04}. Add the missing files, or correct dataset.json."
        )
