"""Where a composed dataset goes: a number and a name go in, its folder comes out, if nothing of the user's is there."""

import os
import re
from pathlib import Path

from duplus_nnunet.data.case_table import FILE_NAME as CASE_TABLE
from duplus_nnunet.data.composing.plan import Plan
from duplus_nnunet.data.composing.record import describe, list_changes, read_record
from duplus_nnunet.data.composing.splits import FILE_NAME as SPLITS
from duplus_nnunet.data.composing.splits import check_preprocessed
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.finding import FILE_NAME as PROMPTS
from duplus_nnunet.prompt_registry.raw_dataset import RAW_VARIABLE

_PREPROCESSED_VARIABLE = "nnUNet_preprocessed"
_VARIABLES = (RAW_VARIABLE, _PREPROCESSED_VARIABLE, "nnUNet_results")
_LARGEST_NUMBER = 999


def find_place(number: int, name: str) -> Path:
    """Find the folder for a composed dataset.

    Raises:
        DataError: Number or name are not as nnU-Net wants them, the number is taken by another name, or nnUNet_raw is
            not set.
    """
    if not 1 <= number <= _LARGEST_NUMBER:
        raise DataError(f"-o is {number}; nnU-Net's numbers go from 1 to {_LARGEST_NUMBER}.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise DataError(f"-n is {name!r}; expected letters, digits, '_' and '-', such as 'Universal'.")
    root = os.environ.get(RAW_VARIABLE)
    if not root or not Path(root).is_dir():
        found = f"is {root!r}, which is no folder" if root else "is not set"
        raise DataError(f"{RAW_VARIABLE} {found}. Set it as for nnU-Net: the dataset is written there.")
    dataset = f"Dataset{number:03}_{name}"
    for variable in _VARIABLES:
        for folder in sorted(Path(os.environ.get(variable) or root).glob(f"Dataset{number:03}_*")):
            if folder.name != dataset:
                raise DataError(
                    f"The number {number} is taken by {folder}, and nnU-Net wants one name a number. Choose another "
                    "by -o."
                )
    return Path(root).absolute() / dataset


def is_up_to_date(plan: Plan, folder: Path, overwrite: bool) -> bool:
    """Tell whether a folder holds what a plan would write.

    Args:
        plan: What would be written.
        folder: Where to.
        overwrite: Whether an earlier composition may be replaced.

    Raises:
        DataError: Something else is there: not composed, or composed otherwise and not to be overwritten.
    """
    preprocessed = os.environ.get(_PREPROCESSED_VARIABLE)
    if folder.exists() or folder.is_symlink():
        record = read_record(folder)
        if record is None:
            raise DataError(
                f"{folder} exists and was not made by `duplus compose`, so it is left alone. Choose another "
                "number by -o."
            )
        if not overwrite:
            changes = list_changes(record, describe(plan)) or _list_missing(plan, folder)
            if not changes:
                return True
            listed = "\n".join(f"  {change}" for change in changes)
            raise DataError(
                f"{folder} was composed before, and this would be different:\n{listed}\nTo replace it, add "
                "--overwrite; then plan and preprocess it again."
            )
    if preprocessed:
        check_preprocessed(Path(preprocessed) / folder.name, plan.splits)
    return False


def _list_missing(plan: Plan, folder: Path) -> list[str]:
    """Say what of a composed dataset has gone since, or was linked to what has gone."""
    files = [folder / name for name in ("dataset.json", PROMPTS, SPLITS, CASE_TABLE)]
    for job in plan.jobs(folder):
        files += map(Path, job.new_images)
        files += [Path(job.new_label)] if job.label is not None and job.new_label is not None else []
    missing = [file.relative_to(folder).as_posix() for file in files if not file.exists()]
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return [f"In it {missing[0]} is missing{more}."] if missing else []
