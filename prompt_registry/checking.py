"""Checks registry files and reports all their problems at once, each with file and line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.errors import DuplusError
from duplus_nnunet.prompt_registry.dataset_labels import foreground_labels
from duplus_nnunet.prompt_registry.embedding import find_store
from duplus_nnunet.prompt_registry.entries import Entry
from duplus_nnunet.prompt_registry.finding import FILE_NAME, fit_entry, search_entry
from duplus_nnunet.prompt_registry.raw_dataset import RawDataset, read_dataset_json
from duplus_nnunet.prompt_registry.registry_file import check_registry_file
from duplus_nnunet.prompt_registry.sentences import entry_texts


@dataclass(frozen=True)
class CheckResult:
    """The files that were checked, their problems, and notes on files without problems."""

    files: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def check_files(files: Iterable[Path], folders: Iterable[Path] = ()) -> CheckResult:
    """Check registry files and all files in folders; a file beside a dataset.json is also checked against it."""
    paths = (*files, *(path for folder in folders for path in sorted(folder.glob("*.yaml"))))
    problems = [problem for path in paths for problem in _check_file(path)]
    return CheckResult(tuple(map(str, paths)), tuple(problems))


def check_raw_dataset(dataset: RawDataset) -> CheckResult:
    """Check the prompts that planning would use for a raw dataset."""
    path = dataset.folder / FILE_NAME
    if path.is_file():
        problems = _check_file(path)
        if problems:
            return CheckResult((str(path),), tuple(problems))
    try:
        search = search_entry(dataset.name, dataset.dataset_json, dataset.folder)
    except DuplusError as error:
        return CheckResult((str(dataset.folder / "dataset.json"),), tuple(str(error).splitlines()))
    return CheckResult((search.entry.origin,), (), (*search.explanations, describe_coverage(search.entry)))


def describe_coverage(entry: Entry) -> str:
    """State how many texts of an entry have a stored embedding."""
    texts = entry_texts(entry)
    store = find_store(None, None, None)
    missing = [text for text in texts if store is None or text not in store]
    if not missing:
        return f"All {len(texts)} texts have a stored embedding: planning needs no text encoder."
    shown = ", ".join(repr(text) for text in missing[:3])
    return f"{len(missing)} of {len(texts)} texts have no stored embedding ({shown}, ...): planning needs an encoder."


def _check_file(path: Path) -> Sequence[str]:
    file, problems = check_registry_file(path)
    beside = path.parent / "dataset.json"
    if file is None or not beside.is_file():
        return [str(problem) for problem in problems]
    try:
        dataset_json = read_dataset_json(beside)
        foreground_labels(dataset_json, str(beside))
    except DuplusError as error:
        return [str(error)]
    return fit_entry(file, path.parent.resolve().name, dataset_json, str(beside))[1]
