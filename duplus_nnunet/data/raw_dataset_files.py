"""Lists the training cases of a raw dataset as nnU-Net does, and finds the files that are missing or left over."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.dataset_labels import channel_names
from duplus_nnunet.prompt_registry.raw_dataset import list_images

_SHOWN = 5
# What nnU-Net's readers accept -> the reader that it tries first.
READERS = {
    ".nii.gz": "SimpleITKIO",
    ".nrrd": "SimpleITKIO",
    ".mha": "SimpleITKIO",
    ".gipl": "SimpleITKIO",
    ".nii": "NibabelIO",
    ".tif": "NaturalImage2DIO",
    ".tiff": "Tiff3DIO",
    ".png": "NaturalImage2DIO",
    ".bmp": "NaturalImage2DIO",
}


@dataclass(frozen=True)
class RawCase:
    """The image files of a training case, in the order of the channels, and its label map."""

    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class RawFiles:
    """The training files of a raw dataset.

    Attributes:
        cases: The complete cases by identifier.
        problems: What is missing or misnamed, a sentence each.
        notes: What nnU-Net will not read, a sentence each.
    """

    cases: Mapping[str, RawCase]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def list_training_files(folder: Path, dataset_json: Mapping[str, Any], ending: str) -> RawFiles:
    """List the training cases of a raw dataset.

    Args:
        folder: The raw dataset's folder.
        dataset_json: Its dataset.json; if that lists files case by case, those are taken.
        ending: File ending of images and label maps.
    """
    listed = dataset_json.get("dataset")
    if listed is not None:
        return _read_listed(folder, listed)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    if not images.is_dir():
        return RawFiles({}, (f"there is no folder {images}. Put the training images there, CASE_0000{ending}.",))
    problems = _find_unnumbered(images, ending)
    by_channel = list_images(images, ending, skip_unnumbered=True)
    expected = len(channel_names(dataset_json))
    complete = {case: files for case, files in by_channel.items() if set(files) == set(range(expected))}
    partial = [f"{case} has {_list_channels(by_channel[case])}" for case in by_channel if case not in complete]
    if partial:
        problems.append(
            f"{len(partial)} case(s) in {images} do not have the {expected} channel(s) of dataset.json, _0000 to "
            f'_{expected - 1:04}: {list_some(partial)}. Add the missing files, or correct "channel_names".'
        )
    if not by_channel and not problems:
        problems.append(_describe_empty(images, ending))
    cases = {case: RawCase(tuple(files.values()), labels / f"{case}{ending}") for case, files in complete.items()}
    missing = [case.label.name for case in cases.values() if not case.label.is_file()]
    if missing:
        problems.append(
            f"{len(missing)} case(s) have no label map in {labels}: {list_some(missing)}. Add the label maps, or take "
            "the images out of imagesTr."
        )
    notes = _find_surplus(labels, ending, by_channel)
    present = {name: case for name, case in cases.items() if case.label.is_file()}
    return RawFiles(present, tuple(problems), tuple(notes))


def list_some(names: Sequence[str]) -> str:
    """List the first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _read_listed(folder: Path, listed: Any) -> RawFiles:
    """Read the cases that dataset.json lists file by file; paths may hold variables and be relative to its folder."""
    problems, cases = [], {}
    if not isinstance(listed, Mapping) or not listed:
        return RawFiles({}, ('"dataset" lists no case. Map case names to {"images": [...], "label": ...}.',))
    for name, files in listed.items():
        try:
            images = tuple(folder / os.path.expandvars(image) for image in files["images"])
            case = RawCase(images, folder / os.path.expandvars(files["label"]))
        except (KeyError, TypeError):
            problems.append(f'case {name!r} of "dataset" needs "images", a list of files, and "label", a file.')
            continue
        missing = [str(file) for file in (*case.images, case.label) if not file.is_file()]
        if missing:
            problems.append(f"case {name!r}: there is no {list_some(missing)}. Correct the path.")
        else:
            cases[str(name)] = case
    return RawFiles(cases, tuple(problems))


def _find_unnumbered(images: Path, ending: str) -> list[str]:
    names = [file.name for file in sorted(images.glob(f"*{ending}")) if not file.name.startswith(".")]
    numbered = {file.name for files in list_images(images, ending, True).values() for file in files.values()}
    wrong = [name for name in names if name not in numbered]
    if not wrong:
        return []
    return [
        f"{len(wrong)} file(s) in {images} have no channel number: {list_some(wrong)}. Name the first channel of a "
        f"case CASE_0000{ending}, the second one CASE_0001{ending} and so on."
    ]


def _list_channels(files: Mapping[int, Path]) -> str:
    return ", ".join(f"_{number:04}" for number in sorted(files))


def _describe_empty(images: Path, ending: str) -> str:
    others = [file.name for file in sorted(images.iterdir()) if not file.name.startswith(".")]
    content = f"it holds {list_some(others)}" if others else "it is empty"
    return (
        f'{images} has no file that ends in {ending!r}, the "file_ending" of dataset.json; {content}. Correct the '
        "ending, or convert the images."
    )


def _find_surplus(labels: Path, ending: str, cases: Mapping[str, Any]) -> list[str]:
    names = [file.name for file in sorted(labels.glob(f"*{ending}"))] if labels.is_dir() else []
    surplus = [name for name in names if name.removesuffix(ending) not in cases and not name.startswith(".")]
    if not surplus:
        return []
    return [
        f"{len(surplus)} label map(s) in {labels} have no image in imagesTr and are not used: {list_some(surplus)}."
    ]


def choose_reader(dataset_json: Mapping[str, Any], ending: str) -> str:
    """Return the name of the reader that nnU-Net takes first for a dataset.

    Raises:
        DataError: No reader accepts the ending.
    """
    required = dataset_json.get("overwrite_image_reader_writer")
    if isinstance(required, str) and required != "None":
        return required
    if ending.lower() not in READERS:
        raise DataError(
            f'"file_ending" is {ending!r}, which nnU-Net cannot read; expected one of {", ".join(READERS)}. Convert '
            "the images, and correct the ending."
        )
    return READERS[ending.lower()]
