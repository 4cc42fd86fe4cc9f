"""Which registry entry a dataset gets: the user's own file, the registry folders', a shipped one, or else a draft.

In: a dataset's name, dataset.json and raw folder. Out: an `Entry`, and on request the way that led to it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import PromptError, RegistryError, list_nearest_first
from duplus_nnunet.prompt_registry.dataset_labels import channel_names, foreground_labels
from duplus_nnunet.prompt_registry.drafting import (
    DRAFTED,
    UNKNOWN_MODALITY,
    describe_dataset_json,
    draft_entry,
    guess_modality,
)
from duplus_nnunet.prompt_registry.entries import Context, Entry, Target
from duplus_nnunet.prompt_registry.names import normalise, strip_dataset_number
from duplus_nnunet.prompt_registry.registry_file import RegistryFile, load_registry_file

FILE_NAME = "prompts.yaml"
FOLDERS_VARIABLE = "DUPLUS_REGISTRY"
SHIPPED_FOLDER = Path(__file__).parent / "files"


@dataclass(frozen=True)
class Search:
    """An entry and the steps by which it was found, in order, each a sentence."""

    entry: Entry
    steps: tuple[str, ...]


def find_entry(dataset_name: str, dataset_json: Mapping[str, Any], folder: str | Path | None = None) -> Entry:
    """Find the entry of a dataset, or draft one.

    Args:
        dataset_name: nnU-Net's name, such as `Dataset004_Hippocampus`.
        dataset_json: The parsed dataset.json.
        folder: The raw dataset folder, where a prompts.yaml may stand.

    Raises:
        RegistryError: A user's file is broken or does not fit the labels, or there is no foreground label.
    """
    return search_entry(dataset_name, dataset_json, folder).entry


def search_entry(dataset_name: str, dataset_json: Mapping[str, Any], folder: str | Path | None = None) -> Search:
    """Find the entry of a dataset as `find_entry` does, and say what was tried and why it was passed over."""
    where = describe_dataset_json(folder)
    foreground_labels(dataset_json, where)
    steps: list[str] = []
    for file in _users_files(dataset_name, folder, steps):
        entry, reasons = fit_entry(file, dataset_name, dataset_json, where)
        if entry is None:
            raise RegistryError("\n".join(reasons))
        return Search(entry, (*steps, f"{file.path}: used."))
    for file in shipped_files():
        if not file.serves(dataset_name):
            continue
        entry, reasons = fit_entry(file, dataset_name, dataset_json, where)
        strangers = _say_other_modality(file, dataset_json, where)
        if entry is not None and not strangers:
            return Search(entry, (*steps, f"{file.path}: used."))
        steps.append(f"{file.path}: passed over. " + " ".join([*strangers, *reasons]))
    steps.append(f"No file left for {dataset_name!r}: drafted from {where}.")
    return Search(draft_entry(dataset_name, dataset_json, folder), tuple(steps))


def name_origin(origin: str) -> str:
    """Say where an entry comes from without a path of this machine, for what is given to others."""
    path = Path(origin)
    if origin.startswith(DRAFTED):
        return f"{DRAFTED} {path.name}"
    return f"shipped: {path.name}" if path.parent == SHIPPED_FOLDER else f"file: {path.parent.name}/{path.name}"


@cache
def shipped_files() -> tuple[RegistryFile, ...]:
    """Load all registry files that come with this package, in the order of their names."""
    return tuple(load_registry_file(path) for path in sorted(SHIPPED_FOLDER.glob("*.yaml")))


def registry_folders() -> tuple[Path, ...]:
    """List the folders named by the environment variable DUPLUS_REGISTRY.

    Raises:
        RegistryError: One of them does not exist.
    """
    folders = tuple(Path(part) for part in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if part)
    for folder in folders:
        if not folder.is_dir():
            message = f"{FOLDERS_VARIABLE} names {str(folder)!r}, which is not a folder."
            raise RegistryError(f"{message} Create it, or take it out of the variable.")
    return folders


def users_registry() -> tuple[RegistryFile, ...]:
    """Load all files in the folders of DUPLUS_REGISTRY."""
    return tuple(load_registry_file(path) for folder in registry_folders() for path in sorted(folder.glob("*.yaml")))


def find_by_name(name: str) -> RegistryFile | None:
    """Find the first registry file, the user's before the shipped ones, that a text names.

    A bare word such as `spleen` names no dataset whose own name has a number, such as `Task09_Spleen`.
    """
    bare = strip_dataset_number(name) == name
    for file in (*users_registry(), *shipped_files()):
        names = (file.form.dataset, file.path.stem, *file.form.datasets)
        if normalise(name) in map(normalise, names) or (not bare and file.serves(name)):
            return file
    return None


def find_targets(name: str) -> list[tuple[RegistryFile, Target]]:
    """Find a target by name or synonym in all registry files.

    Raises:
        PromptError: No file has it, or a dataset of that name.
    """
    files = (*users_registry(), *shipped_files())
    found = [
        (file, target)
        for file in files
        for target in file.targets.values()
        if normalise(name) in {normalise(word) for word in (*file.labels[target.name], *target.synonyms)}
    ]
    if not found:
        known = [file.form.dataset for file in files] + [target for file in files for target in file.targets]
        near = ", ".join(repr(other) for other in list_nearest_first(name, known)[:5])
        message = f"Unknown dataset or target {name!r}. Nearest: {near}. `duplus prompts list` shows all datasets."
        raise PromptError(message)
    return found


def fit_entry(
    file: RegistryFile, dataset_name: str, dataset_json: Mapping[str, Any], where: str
) -> tuple[Entry | None, tuple[str, ...]]:
    """Bring a file and a dataset together; without an entry there are reasons, each with file and line."""
    labels = foreground_labels(dataset_json, where)
    owners = {normalise(key): name for name, keys in file.labels.items() for key in keys}
    owned = {label: owners.get(normalise(label)) for label in labels}
    reasons = [*_unowned(file, owned, where), *_doubly_owned(file, owned), *_unused(file, owned, where)]
    if reasons:
        return None, tuple(reasons)
    names = set(owned.values())
    targets = tuple(_take(file.targets[name], label, names) for label, name in owned.items() if name is not None)
    contexts = _choose_contexts(file, dataset_json)
    default = file.default_context if file.default_context in contexts else next(iter(contexts))
    return Entry(dataset_name, contexts, default, targets, str(file.path), file.form.source), ()


def _users_files(dataset_name: str, folder: str | Path | None, steps: list[str]) -> Iterator[RegistryFile]:
    if folder is not None:
        path = Path(folder) / FILE_NAME
        if path.is_file():
            yield load_registry_file(path)
        steps.append(f"{path}: there is none.")
    for registry in registry_folders():
        files = [load_registry_file(path) for path in sorted(registry.glob("*.yaml"))]
        yield from (file for file in files if file.serves(dataset_name))
        steps.append(f"{registry}: none of its {len(files)} files serves {dataset_name!r}.")


def _unowned(file: RegistryFile, owned: Mapping[str, str | None], where: str) -> Iterator[str]:
    for label, name in owned.items():
        if name is None:
            near = ", ".join(repr(other) for other in list_nearest_first(label, file.targets)[:3])
            yield (
                f"{file.at('targets')}: no target for the label {label!r} of {where} (nearest: {near}). "
                f"Add a target of that name, or write `labels: [{label}]` under the target it means."
            )


def _doubly_owned(file: RegistryFile, owned: Mapping[str, str | None]) -> Iterator[str]:
    first: dict[str, str] = {}
    for label, name in owned.items():
        if name is not None and first.setdefault(name, label) != label:
            yield (
                f"{file.at('targets', name)}: the labels {first[name]!r} and {label!r} both belong to the target "
                f"{name!r}. Make two targets of it."
            )


def _unused(file: RegistryFile, owned: Mapping[str, str | None], where: str) -> Iterator[str]:
    if file.form.partial:
        return
    for name in file.targets:
        if name not in owned.values():
            yield (
                f"{file.at('targets', name)}: the target {name!r} has no label in {where}, which has "
                f"{', '.join(repr(label) for label in owned)}. Remove it, or name its label by `labels: [...]`."
            )


def _take(target: Target, label: str, names: set[str | None]) -> Target:
    return replace(target, label=label, partner=target.partner if target.partner in names else None)


def _say_other_modality(file: RegistryFile, dataset_json: Mapping[str, Any], where: str) -> list[str]:
    """Tell if a dataset's channels are of a modality for which a file has no context."""
    known = {context.modality for context in file.contexts.values()}
    guessed = {guess_modality([channel]) for channel in channel_names(dataset_json)} - {UNKNOWN_MODALITY}
    strange = sorted(modality for modality in guessed if not any(modality in one for one in known))
    if not strange:
        return []
    listed, found = ", ".join(sorted(known)), ", ".join(strange)
    return [f"{file.at('contexts')}: its contexts are for {listed}, but the channels of {where} are {found}."]


def _choose_contexts(file: RegistryFile, dataset_json: Mapping[str, Any]) -> Mapping[str, Context]:
    """Keep the one context that the dataset's only channel belongs to, where that is clear; else all of them."""
    channels = channel_names(dataset_json)
    if len(channels) != 1:
        return file.contexts
    of_channel = [one for one in file.contexts.values() if normalise(one.channel or "") == normalise(channels[0])]
    modality = guess_modality(channels)
    of_modality = [one for one in file.contexts.values() if one.channel and modality in one.modality]
    for found in (of_channel, of_modality):
        if len(found) == 1:
            return {found[0].name: found[0]}
    return file.contexts
