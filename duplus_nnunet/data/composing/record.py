"""Finds the folder of a composed dataset, and records its sources there so that changes to them are noticed later."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duplus_nnunet import __version__
from duplus_nnunet.data.case_table import FILE_NAME as CASE_TABLE
from duplus_nnunet.data.composing.plan import Plan
from duplus_nnunet.data.composing.source_datasets import SourceDataset
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.data.composing.splits import FILE_NAME as SPLITS
from duplus_nnunet.data.composing.splits import check_preprocessed
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.finding import FILE_NAME as PROMPTS
from duplus_nnunet.prompt_registry.raw_dataset import RAW_VARIABLE
from duplus_nnunet.text_files import load_json

FILE_NAME = "duplus_compose.json"
_SHOWN = 5
_PREPROCESSED_VARIABLE = "nnUNet_preprocessed"
_VARIABLES = (RAW_VARIABLE, _PREPROCESSED_VARIABLE, "nnUNet_results")
_LARGEST_NUMBER = 999


def find_output_folder(number: int, name: str) -> Path:
    """Find the folder for a composed dataset.

    Raises:
        DataError: The number or name is not valid for nnU-Net, the number belongs to another dataset, or nnUNet_raw is
            not set.
    """
    if not 1 <= number <= _LARGEST_NUMBER:
        raise DataError(f"-o is {number}; expected a number from 1 to {_LARGEST_NUMBER}.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise DataError(f"-n is {name!r}; expected letters, digits, '_' and '-', such as 'Universal'.")
    root = os.environ.get(RAW_VARIABLE)
    if not root or not Path(root).is_dir():
        state = f"is {root!r}, which is not a folder" if root else "is not set"
        raise DataError(f"{RAW_VARIABLE} {state}. Set it as for nnU-Net: the dataset is written there.")
    dataset = f"Dataset{number:03}_{name}"
    for variable in _VARIABLES:
        for folder in sorted(Path(os.environ.get(variable) or root).glob(f"Dataset{number:03}_*")):
            if folder.name != dataset:
                raise DataError(
                    f"The number {number} belongs to {folder}; each dataset of nnU-Net needs its own number. Choose "
                    "another one with -o."
                )
    return Path(root).absolute() / dataset


def is_up_to_date(plan: Plan, folder: Path, overwrite: bool) -> bool:
    """Whether a folder already holds the planned dataset.

    Args:
        plan: The planned dataset.
        folder: Folder to write it to.
        overwrite: Whether an earlier composed dataset may be replaced.

    Raises:
        DataError: The folder holds a dataset that was not composed, or that differs and may not be overwritten.
    """
    preprocessed = os.environ.get(_PREPROCESSED_VARIABLE)
    if folder.exists() or folder.is_symlink():
        record = read_record(folder)
        if record is None:
            raise DataError(
                f"{folder} exists and was not written by `duplus compose`, so it is not replaced. Choose another "
                "number with -o."
            )
        if not overwrite:
            changes = list_changes(record, describe_plan(plan)) or _list_missing(plan, folder)
            if not changes:
                return True
            listed = "\n".join(f"  {change}" for change in changes)
            raise DataError(
                f"{folder} was composed before, and the new dataset would differ:\n{listed}\nTo replace it, add "
                "--overwrite; then plan and preprocess it again."
            )
    if preprocessed:
        check_preprocessed(Path(preprocessed) / folder.name, plan.splits)
    return False


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Return everything that a composed dataset depends on: version, specification, folds, and the sources' files."""
    return {
        "version": __version__,
        "specification": plan.spec.model_dump(mode="json"),
        "folds": _hash(json.dumps(plan.splits)),
        "sources": {source.dataset: _describe_source(source) for source in plan.sources},
    }


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of a composed dataset; None if the folder has none that can be read."""
    try:
        content = load_json(folder / FILE_NAME)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("sources"), dict) else None


def list_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the differences between two records, one sentence each."""
    changes = []
    if old.get("version") != new["version"]:
        changes.append(f"It was composed with version {old.get('version')}; this is version {new['version']}.")
    # A key that an earlier version did not have stands for its default.
    before, after = {**Spec().model_dump(mode="json"), **(old.get("specification") or {})}, new["specification"]
    keys = [key for key in after if before.get(key) != after[key]]
    if keys:
        changes.append(f"The specification differs: {', '.join(keys)}.")
    before, after = old["sources"], new["sources"]
    if list(before) != list(after):
        changes.append(f"It was composed of {', '.join(before)}; now of {', '.join(after)}.")
    for dataset in after:
        if dataset in before:
            changes += _list_source_changes(dataset, before[dataset], after[dataset])
    if not changes and old.get("folds") != new["folds"]:
        changes.append("The folds differ.")
    return changes


def hash_prompts(folder: Path) -> str | None:
    """Return the checksum of a dataset's prompts.yaml, by which edits are noticed; None if there is no such file."""
    file = folder / PROMPTS
    return _hash(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else None


def _list_missing(plan: Plan, folder: Path) -> list[str]:
    """List files of a composed dataset that are missing, or whose link has no target any more."""
    files = [folder / name for name in ("dataset.json", PROMPTS, SPLITS, CASE_TABLE)]
    for job in plan.jobs(folder):
        files += map(Path, job.new_images)
        files += [Path(job.new_label)] if job.label is not None and job.new_label is not None else []
    missing = [file.relative_to(folder).as_posix() for file in files if not file.exists()]
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return [f"{missing[0]}{more} is missing in it."] if missing else []


def _list_source_changes(dataset: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    changes = []
    for word, names in (
        ("new", sorted(after["files"].keys() - before["files"].keys())),
        ("gone", sorted(before["files"].keys() - after["files"].keys())),
        ("changed", [name for name, stamp in after["files"].items() if before["files"].get(name, stamp) != stamp]),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            changes.append(f"{dataset}: {word}: {', '.join(names[:_SHOWN])}{more}.")
    if before["folder"] != after["folder"]:
        changes.append(f"{dataset} was in {before['folder']} and is now in {after['folder']}.")
    if not changes and before["prompts"] != after["prompts"]:
        changes.append(f"{dataset}: its prompts in the registry have changed.")
    return changes


def _describe_source(source: SourceDataset) -> dict[str, Any]:
    cases = (*source.training.values(), *source.tests.values())
    optional = (source.folder / PROMPTS, source.folder / CASE_TABLE)
    files = [source.folder / "dataset.json", *optional]
    files += [file for case in cases for file in (*case.images, *([case.label] if case.label else []))]
    return {
        "folder": str(source.folder.resolve()),
        "prompts": _hash(repr((source.entry.contexts, source.entry.targets))),
        "files": {_name(file, source.folder): _stamp(file) for file in files if file.exists() or file not in optional},
    }


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _stamp(file: Path) -> list[int]:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}). Correct the link, or remove it.") from error
    return [status.st_size, status.st_mtime_ns]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
