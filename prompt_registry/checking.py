"""Checks registry files and reports all their problems at once, each with file and line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DuplusError, RegistryError
from duplus_nnunet.prompt_registry.case_contexts import count_contexts, find_case_contexts
from duplus_nnunet.prompt_registry.dataset_labels import channel_names, check_label_values, foreground_labels
from duplus_nnunet.prompt_registry.embedding import find_store
from duplus_nnunet.prompt_registry.entries import Entry
from duplus_nnunet.prompt_registry.finding import FILE_NAME, fit_entry, search_entry
from duplus_nnunet.prompt_registry.implausible import find_implausible
from duplus_nnunet.prompt_registry.raw_dataset import (
    CASE_TABLE,
    RawDataset,
    list_case_names,
    read_dataset_json,
    read_table_contexts,
)
from duplus_nnunet.prompt_registry.registry_file import check_registry_file, file_entry, load_registry_file
from duplus_nnunet.prompt_registry.reviewing import find_doubts, list_numbered
from duplus_nnunet.prompt_registry.sentences import entry_texts


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    Attributes:
        files: The files that were checked.
        problems: Why they cannot be used.
        notes: Remarks on files without problems.
        warnings: Texts that say nothing, and review marks that were left; the files can be used.
    """

    files: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_files(files: Iterable[Path], folders: Iterable[Path] = ()) -> CheckResult:
    """Check registry files and all files in folders; a file beside a dataset.json is also checked against it."""
    paths = (*files, *(path for folder in folders for path in sorted(folder.glob("*.yaml"))))
    problems = [problem for path in paths for problem in _check_file(path)]
    warnings = [] if problems else [doubt for path in paths for doubt in _find_doubts(path)]
    return CheckResult(tuple(map(str, paths)), tuple(problems), warnings=tuple(warnings))


def check_raw_dataset(dataset: RawDataset) -> CheckResult:
    """Check the prompts that planning would use for a raw dataset."""
    path = dataset.folder / FILE_NAME
    if path.is_file():
        problems = _check_file(path)
        if problems:
            return CheckResult((str(path),), tuple(problems))
    try:
        search = search_entry(dataset.name, dataset.dataset_json, dataset.folder)
        _check_values(dataset.dataset_json, dataset.folder / "dataset.json")
        counts = _describe_cases(search.entry, dataset)
    except DuplusError as error:
        return CheckResult((str(dataset.folder / "dataset.json"),), tuple(str(error).splitlines()))
    entry, numbered = search.entry, list_numbered(search.entry)
    if numbered:
        return CheckResult((entry.origin,), tuple(numbered), search.explanations)
    used = load_registry_file(entry.origin) if Path(entry.origin).is_file() else None
    notes = (*search.explanations, *counts, describe_coverage(entry), *describe_implausible(entry))
    return CheckResult((entry.origin,), (), notes, tuple(find_doubts(entry, used)))


def _describe_cases(entry: Entry, dataset: RawDataset) -> tuple[str, ...]:
    """Count the training cases of each context; nothing if there are no images yet.

    Raises:
        DuplusError: The context of a case is not known, or that of a table of cases is not in the entry.
    """
    cases = list_case_names(dataset)
    if not cases:
        return ()
    known = read_table_contexts(dataset.folder)
    lost = [f"{name!r}" for name in set(known.values()) if name not in entry.contexts and len(entry.contexts) > 1]
    if lost:
        raise RegistryError(
            f"{dataset.folder / CASE_TABLE} names the context {lost[0]}, which {entry.origin} does not have; it has "
            f"{', '.join(entry.contexts)}. Name it as there, or remove that file if `duplus convert` wrote it."
        )
    assigned = known or find_case_contexts(entry, cases, channel_names(dataset.dataset_json))
    counts = count_contexts({name: assigned[name] for name in cases if name in assigned})
    return (f"{len(cases)} training cases by context: {counts}.",)


def describe_coverage(entry: Entry) -> str:
    """State how many texts of an entry have a stored embedding."""
    texts = entry_texts(entry)
    store = find_store(None, None, None)
    missing = [text for text in texts if store is None or text not in store]
    if not missing:
        return f"All {len(texts)} texts have a stored embedding: planning needs no text encoder."
    shown = ", ".join(repr(text) for text in missing[:3])
    return f"{len(missing)} of {len(texts)} texts have no stored embedding ({shown}, ...): planning needs an encoder."


def describe_implausible(entry: Entry) -> Iterator[str]:
    """Describe for each context the targets that its images cannot show, a sentence each."""
    for name, targets in find_implausible(entry).items():
        if targets:
            region = entry.contexts[name].region
            yield f"Images of the context {name!r} ({region}) cannot show {', '.join(targets)}, by `regions`."


def _find_doubts(path: Path) -> list[str]:
    file = load_registry_file(path)
    return find_doubts(file_entry(file), file)


def _check_values(dataset_json: Mapping[str, Any], where: Path) -> None:
    check_label_values(dataset_json.get("labels"), dataset_json.get("regions_class_order"), where)


def _check_file(path: Path) -> Sequence[str]:
    file, problems = check_registry_file(path)
    beside = path.parent / "dataset.json"
    if file is None or not beside.is_file():
        return [str(problem) for problem in problems]
    try:
        dataset_json = read_dataset_json(beside)
        foreground_labels(dataset_json, str(beside))
        _check_values(dataset_json, beside)
    except DuplusError as error:
        return str(error).splitlines()
    return fit_entry(file, path.parent.resolve().name, dataset_json, str(beside))[1]
