"""Checks the training files of a raw dataset for `duplus prompts check`, from their headers alone."""

from duplus_nnunet.prompt_registry.raw_dataset import RawDataset


def check_training_files(raw: RawDataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check dataset.json, the list of files and the headers of a raw dataset whose images are in place.

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
    return checked.problems, (*checked.notes, known)


def count_things(number: int, word: str) -> str:
    """Return a number with a word in the singular or plural, such as `no problems`."""
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
