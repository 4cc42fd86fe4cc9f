"""Opens raw nnU-Net datasets by folder, name or number, and lists their images by case and channel."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.prompt_registry.names import normalise, strip_dataset_number
from duplus_nnunet.text_files import load_json

File = TypeVar("File", bound=PurePath)
RAW_VARIABLE = "nnUNet_raw"
# The table of a composed or converted dataset, which says the context of each case.
CASE_TABLE = "duplus_cases.json"


@dataclass(frozen=True)
class RawDataset:
    """The name of a raw dataset (that of its folder), its folder and its parsed dataset.json."""

    name: str
    folder: Path
    dataset_json: dict[str, Any]


def open_raw_dataset(text: str) -> RawDataset:
    """Open a raw dataset by folder, name (`Dataset501_Phantom` or `Phantom`) or number.

    Raises:
        DataError: There is no such dataset, or its dataset.json cannot be read.
    """
    folder = Path(text) if (Path(text) / "dataset.json").is_file() else _find_by_name(text)
    return RawDataset(folder.resolve().name, folder, read_dataset_json(folder / "dataset.json"))


def has_raw_dataset(text: str) -> bool:
    """Whether a text is the folder, name or number of a raw dataset that can be opened."""
    try:
        open_raw_dataset(text)
    except DataError:
        return False
    return True


def read_dataset_json(path: Path) -> dict[str, Any]:
    """Read a dataset.json.

    Raises:
        DataError: The file is missing, is not valid JSON, or is not a JSON object.
    """
    try:
        content = load_json(path)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error}). Every nnU-Net raw dataset needs this file."
        raise DataError(message) from error
    if not isinstance(content, dict):
        message = f"{path}: expected a JSON object, found a {type(content).__name__}."
        raise DataError(message)
    return content


def require_file_ending(dataset_json: Mapping[str, Any], file: Path) -> str:
    """Return the ending of a raw dataset's image files, such as `.nii.gz`.

    Args:
        dataset_json: The parsed file.
        file: Its path, for messages.

    Raises:
        DataError: dataset.json has no "file_ending", or it does not start with a point.
    """
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataError(f'{file}: expected "file_ending" to be an ending such as ".nii.gz", found {ending!r}. Add it.')
    return ending


def list_images(folder: Path, ending: str, skip_unnumbered: bool = False) -> dict[str, dict[int, Path]]:
    """List the image files of a folder such as imagesTr by case identifier and channel number.

    Hidden files and folders are left out; a folder that does not exist has no images.

    Args:
        folder: The folder.
        ending: Ending of the image files, such as `.nii.gz`.
        skip_unnumbered: Leave out files without a channel number instead of refusing them.

    Returns:
        The files of each case by channel number, cases in the order of their file names and channels in rising order.

    Raises:
        DataError: A file with that ending has no channel number.
    """
    files = [file for file in sorted(folder.glob(f"*{ending}")) if not file.is_dir()]
    return group_channels(files, ending, "", skip_unnumbered)


def group_channels(
    files: Iterable[File], ending: str, folder: str = "", skip_unnumbered: bool = False
) -> dict[str, dict[int, File]]:
    """Group image files by case identifier and channel number, as `list_images` does; others are left out.

    Args:
        files: The files, in their order.
        ending: Ending of the image files, such as `.nii.gz`.
        folder: Their folder, for messages, if the files do not say it.
        skip_unnumbered: Leave out files without a channel number instead of refusing them.

    Raises:
        DataError: A file with that ending has no channel number.
    """
    cases: dict[str, dict[int, File]] = {}
    for file in files:
        if file.name.startswith(".") or not file.name.endswith(ending):
            continue
        numbered = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(ending), re.DOTALL)
        if numbered is not None:
            cases.setdefault(numbered[1], {})[int(numbered[2])] = file
        elif not skip_unnumbered:
            shown = f"{folder}/{file}" if folder else str(file)
            raise DataError(
                f"{shown} has no channel number. Name the first channel of a case CASE_0000{ending}, the second one "
                f"CASE_0001{ending} and so on."
            )
    return cases


def list_case_names(dataset: RawDataset) -> list[str]:
    """List the identifiers of the training cases: those that dataset.json lists, else those of imagesTr."""
    listed, ending = dataset.dataset_json.get("dataset"), dataset.dataset_json.get("file_ending")
    if isinstance(listed, dict):
        return list(listed)
    return list(list_images(dataset.folder / "imagesTr", ending, True)) if isinstance(ending, str) and ending else []


def read_table_contexts(folder: Path) -> dict[str, str]:
    """Read the context of each training case from a dataset's table of cases; empty if there is no table.

    Raises:
        DataError: The table does not have the expected form.
    """
    try:
        content: Any = load_json(folder / CASE_TABLE)
        return {name: str(content["sources"][case["source"]]["context"]) for name, case in content["cases"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{folder / CASE_TABLE} cannot be read: {error!r}. Compose or convert the dataset again."
        ) from error


def _find_by_name(text: str) -> Path:
    root = os.environ.get(RAW_VARIABLE)
    if not root:
        message = f"{text!r} is not a folder with a dataset.json, and {RAW_VARIABLE} is not set."
        raise DataError(f"{message} Give the raw dataset's folder, or set {RAW_VARIABLE} as for nnU-Net.")
    folders = _list_raw_datasets(root)
    matches = [folder for folder in folders if _matches(folder.name, text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = ", ".join(repr(folder.name) for folder in matches)
        message = f"Dataset {text!r} matches {listed} in {root}. Give its full name."
        raise DataError(message)
    message = describe_unknown("dataset", text, (folder.name for folder in folders))
    raise DataError(f"{message} It was looked for as a folder and in {RAW_VARIABLE}={root}.")


def is_missing(text: str) -> bool:
    """Whether no raw dataset has a name or number; one that several have is not missing, though it cannot be opened."""
    root = os.environ.get(RAW_VARIABLE)
    named = bool(root) and any(_matches(folder.name, text) for folder in _list_raw_datasets(str(root)))
    return not named and not (Path(text) / "dataset.json").is_file()


def _list_raw_datasets(root: str) -> list[Path]:
    return [path.parent for path in sorted(Path(root).glob("Dataset*/dataset.json"))]


def _matches(name: str, text: str) -> bool:
    number = re.match(r"Dataset(\d+)_", name)
    if text.isdigit():
        return number is not None and int(number[1]) == int(text)
    return normalise(text) in (normalise(name), normalise(strip_dataset_number(name)))
