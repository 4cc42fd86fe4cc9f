"""What a composed dataset was made of, so that composing again knows whether anything has changed.

In: a plan. Out: plain data for a file in the composed dataset, and the differences between two of them in words.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duplus_nnunet import __version__
from duplus_nnunet.data.composing.origins import Origin
from duplus_nnunet.data.composing.plan import Plan
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.finding import FILE_NAME as PROMPTS

FILE_NAME = "duplus_compose.json"
_SHOWN = 5


def describe(plan: Plan) -> dict[str, Any]:
    """Collect what decides on the composed dataset: version, specification, folds, and every source's files."""
    return {
        "version": __version__,
        "specification": plan.spec.model_dump(mode="json"),
        "folds": _hash(json.dumps(plan.splits)),
        "sources": {origin.dataset: _describe_source(origin) for origin in plan.origins},
    }


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read a composed dataset's record; None if the folder holds none that can be read."""
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("sources"), dict) else None


def list_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say what differs between two records, a sentence each."""
    changes = []
    if old.get("version") != new["version"]:
        changes.append(f"It was composed by version {old.get('version')}, this is {new['version']}.")
    if old.get("specification") != new["specification"]:
        before, after = old.get("specification") or {}, new["specification"]
        keys = [key for key in after if before.get(key) != after[key]]
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
    """Give the checksum of a dataset's prompts, by which an edit is noticed; None if there are none."""
    file = folder / PROMPTS
    return _hash(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else None


def _list_source_changes(dataset: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    changes = []
    for word, names in (
        ("new", sorted(after["files"].keys() - before["files"].keys())),
        ("gone", sorted(before["files"].keys() - after["files"].keys())),
        ("changed", [one for one, seen in after["files"].items() if before["files"].get(one, seen) != seen]),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            changes.append(f"{dataset}: {word}: {', '.join(names[:_SHOWN])}{more}.")
    if before["folder"] != after["folder"]:
        changes.append(f"{dataset} lay in {before['folder']}, now in {after['folder']}.")
    if not changes and before["prompts"] != after["prompts"]:
        changes.append(f"{dataset}: its prompts in the registry have changed.")
    return changes


def _describe_source(origin: Origin) -> dict[str, Any]:
    cases = (*origin.training.values(), *origin.tests.values())
    files = [origin.folder / "dataset.json", origin.folder / PROMPTS]
    files += [file for case in cases for file in (*case.images, *([case.label] if case.label else []))]
    return {
        "folder": str(origin.folder.resolve()),
        "prompts": _hash(repr((origin.entry.contexts, origin.entry.targets))),
        "files": {_name(file, origin.folder): _stamp(file) for file in files if file.exists() or file.name != PROMPTS},
    }


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _stamp(file: Path) -> list[int]:
    try:
        seen = file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}). Mend the link, or remove it.") from error
    return [seen.st_size, seen.st_mtime_ns]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
