"""Finds the registry entry of a dataset: in the user's file, registry folders or shipped files, or by drafting one."""

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
class EntrySearch:
    """Result of the search for an entry.

    Attributes:
        entry: The entry.
        explanations: Why each file that was considered was used or not, one sentence each, in order.
    """

    entry: Entry
    explanations: tuple[str, ...]


def find_entry(dataset_name: str, dataset_json: Mapping[str, Any], folder: str | Path | None = None) -> Entry:
    """Find the entry of a dataset, or draft one.

    Args:
        dataset_name: nnU-Net's name, such as `Dataset004_Hippocampus`.
        dataset_json: The parsed dataset.json.
        folder: Folder of the raw dataset, which may contain a prompts.yaml.

    Raises:
        RegistryError: A user's file has errors or does not match the labels, or there is no foreground label.
    """
    return search_entry(dataset_name, dataset_json, folder).entry


def search_entry(dataset_name: str, dataset_json: Mapping[str, Any], folder: str | Path | None = None) -> EntrySearch:
    """Find the entry of a dataset as `find_entry` does, and explain why each file was used or not."""
    where = describe_dataset_json(folder)
    foreground_labels(dataset_json, where)
    explanations: list[str] = []
    for file in _users_files(dataset_name, folder, explanations):
        entry, reasons = fit_entry(file, dataset_name, dataset_json, where)
        if entry is None:
            raise RegistryError("\n".join(reasons))
        return EntrySearch(entry, (*explanations, f"{file.path}: used."))
    for file in shipped_files():
        if not file.serves(dataset_name):
            continue
        entry, reasons = fit_entry(file, dataset_name, dataset_json, where)
        mismatches = _describe_other_modality(file, dataset_json, where)
        if entry is not None and not mismatches:
            return EntrySearch(entry, (*explanations, f"{file.path}: used."))
        explanations.append(f"{file.path}: not used. " + " ".join([*mismatches, *reasons]))
    explanations.append(f"No file fits {dataset_name!r}: drafted from {where}.")
    return EntrySearch(draft_entry(dataset_name, dataset_json, folder), tuple(explanations))


def name_origin(origin: str) -> str:
    """Name the origin of an entry without local paths, for files that are shared."""
    path = Path(origin)
    if origin.startswith(DRAFTED):
        return f"{DRAFTED} {path.name}"
    return f"shipped: {path.name}" if path.parent == SHIPPED_FOLDER else f"file: {path.parent.name}/{path.name}"


@cache
def shipped_files() -> tuple[RegistryFile, ...]:
    """Load all registry files of this package, in the order of their names."""
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
            raise RegistryError(f"{message} Create it, or remove it from the variable.")
    return folders


def users_registry() -> tuple[RegistryFile, ...]:
    """Load all files in the folders of DUPLUS_REGISTRY."""
    return tuple(load_registry_file(path) for folder in registry_folders() for path in sorted(folder.glob("*.yaml")))


def find_by_name(name: str) -> RegistryFile | None:
    """Find the first registry file of a dataset by its name; the user's files come before the shipped ones.

    A name without a number, such as `spleen`, does not match a dataset by its name without number (`Task09_Spleen`),
    since it may also be a target.
    """
    return next(list_by_name(name), None)


def list_by_name(*names: str) -> Iterator[RegistryFile]:
    """Yield the registry files of a dataset by any of some names, as `find_by_name` finds the first one."""
    wanted = {normalise(name) for name in names}
    numbered = [name for name in names if strip_dataset_number(name) != name]
    for file in (*users_registry(), *shipped_files()):
        known = (file.form.dataset, file.path.stem, *file.form.datasets)
        if wanted & set(map(normalise, known)) or any(file.serves(name) for name in numbered):
            yield file


def find_targets(name: str) -> list[tuple[RegistryFile, Target]]:
    """Find a target by name or synonym in all registry files.

    Raises:
        PromptError: No file has a target or a dataset of that name.
    """
    files = (*users_registry(), *shipped_files())
    matches = [
        (file, target)
        for file in files
        for target in file.targets.values()
        if normalise(name) in {normalise(word) for word in (*file.labels[target.name], *target.synonyms)}
    ]
    if not matches:
        known = [file.form.dataset for file in files] + [target for file in files for target in file.targets]
        near = ", ".join(repr(other) for other in list_nearest_first(name, known)[:5])
        message = f"Unknown dataset or target {name!r}. Nearest: {near}. `duplus prompts list` shows all datasets."
        raise PromptError(message)
    return matches


def fit_entry(
    file: RegistryFile, dataset_name: str, dataset_json: Mapping[str, Any], where: str
) -> tuple[Entry | None, tuple[str, ...]]:
    """Build the entry of a dataset from a registry file; None, with the reasons, if they do not match."""
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


def _users_files(dataset_name: str, folder: str | Path | None, explanations: list[str]) -> Iterator[RegistryFile]:
    if folder is not None:
        path = Path(folder) / FILE_NAME
        if path.is_file():
            yield load_registry_file(path)
        explanations.append(f"{path}: does not exist.")
    for registry in registry_folders():
        files = [load_registry_file(path) for path in sorted(registry.glob("*.yaml"))]
        yield from (file for file in files if file.serves(dataset_name))
        explanations.append(f"{registry}: none of its {len(files)} files is for {dataset_name!r}.")


def _unowned(file: RegistryFile, owned: Mapping[str, str | None], where: str) -> Iterator[str]:
    for label, name in owned.items():
        if name is None:
            near = ", ".join(repr(other) for other in list_nearest_first(label, file.targets)[:3])
            yield (
                f"{file.at('targets')}: no target for the label {label!r} of {where} (nearest: {near}). "
                f"Add a target of that name, or write `labels: [{label}]` under the target that it belongs to."
            )


def _doubly_owned(file: RegistryFile, owned: Mapping[str, str | None]) -> Iterator[str]:
    first: dict[str, str] = {}
    for label, name in owned.items():
        if name is not None and first.setdefault(name, label) != label:
            yield (
                f"{file.at('targets', name)}: the labels {first[name]!r} and {label!r} both belong to the target "
                f"{name!r}. Define a target for each of them."
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


def _describe_other_modality(file: RegistryFile, dataset_json: Mapping[str, Any], where: str) -> list[str]:
    """Report channels of a dataset whose modality no context of a file has."""
    known = {context.modality for context in file.contexts.values()}
    guessed = {guess_modality([channel]) for channel in channel_names(dataset_json)} - {UNKNOWN_MODALITY}
    unknown = sorted(modality for modality in guessed if not any(modality in other for other in known))
    if not unknown:
        return []
    listed, others = ", ".join(sorted(known)), ", ".join(unknown)
    return [f"{file.at('contexts')}: its contexts are for {listed}, but the channels of {where} are {others}."]


def _choose_contexts(file: RegistryFile, dataset_json: Mapping[str, Any]) -> Mapping[str, Context]:
    """Keep only the context of a dataset's single channel, if exactly one context matches it; otherwise all.

    The channel then stands in for the context's case names, which distinguish it from the other contexts.
    """
    channels = channel_names(dataset_json)
    if len(channels) != 1:
        return file.contexts
    contexts, modality = file.contexts.values(), guess_modality(channels)
    of_channel = [context for context in contexts if normalise(context.channel or "") == normalise(channels[0])]
    of_modality = [context for context in contexts if context.channel and modality in context.modality]
    for candidates in (of_channel, of_modality):
        if len(candidates) == 1:
            return {candidates[0].name: replace(candidates[0], cases=())}
    return file.contexts
