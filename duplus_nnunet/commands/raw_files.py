"""Checks the training files of a raw dataset for `duplus prompts check`, from their headers and its table of cases."""

from collections.abc import Collection

from duplus_nnunet.errors import DataError, RegistryError
from duplus_nnunet.prompt_registry.raw_dataset import RawDataset


def check_training_files(raw: RawDataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check dataset.json, the list of files, the headers and the table of cases of a dataset whose images are in place.

    Returns:
        Problems and notes.
    """
    from duplus_nnunet.data.composing.processing import count_processes
    from duplus_nnunet.data.raw_checks import check_raw_files

    images = raw.folder / "imagesTr"
    if raw.dataset_json.get("dataset") is None and not (images.is_dir() and any(images.iterdir())):
        return (), (f"{raw.folder} has no training images yet, so files were not checked.",)
    checked = check_raw_files(raw.folder, raw.dataset_json, count_processes())
    known = f"{len(checked.files.cases)} training cases: files, headers and grids were checked, label values were not."
    return (*checked.problems, *_check_table(raw, checked.files.cases.keys())), (*checked.notes, known)


def _check_table(raw: RawDataset, training: Collection[str]) -> tuple[str, ...]:
    """Compare the table of a converted dataset with its prompts; what is wrong with these is reported elsewhere."""
    from duplus_nnunet.data.converted_table import read_raw_table
    from duplus_nnunet.prompt_registry import find_entry

    try:
        read_raw_table(raw.folder, find_entry(raw.name, raw.dataset_json, raw.folder), raw.dataset_json, training)
    except DataError as error:
        return tuple(line.strip() for line in str(error).splitlines())
    except RegistryError:
        return ()
    return ()


def count_things(number: int, word: str) -> str:
    """Return a number with a word in the singular or plural, such as `no problems`."""
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
