"""Reads the table of cases of a raw dataset, and compares that of a converted one with what is there today.

`duplus convert` writes the table: source, patient, context and annotated targets of each case. Afterwards people edit
prompts.yaml, remove cases or correct label maps. What still means the same is followed; what contradicts the table is
refused. Without the table, planning makes it from the registry's rules and the label maps.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import FILE_NAME, Case, CaseTable, read_case_table
from duplus_nnunet.data.default_table import describe_sources, list_values, name_sources
from duplus_nnunet.errors import DataError, PromptError, RegistryError
from duplus_nnunet.prompt_registry import Entry, find_entry, match_target
from duplus_nnunet.prompt_registry.case_contexts import find_case_contexts
from duplus_nnunet.prompt_registry.dataset_labels import channel_names
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json

# What `duplus convert` did; it distinguishes a converted dataset from a composed one.
RECORD = "conversion.json"
_SHOWN = 5


def is_composed(folder: Path) -> bool:
    """Whether a raw dataset was written by `duplus compose`: it has a table of cases, and was not converted."""
    return (folder / FILE_NAME).exists() and not (folder / RECORD).exists()


def read_raw_table(
    folder: Path, entry: Entry, dataset_json: Mapping[str, Any], training: Collection[str]
) -> CaseTable | None:
    """Read the table of a raw dataset; None if it has none.

    Args:
        folder: The raw dataset.
        entry: Its registry entry.
        dataset_json: Its dataset.json.
        training: Its training cases.

    Returns:
        The table of a composed dataset as it is; that of a converted one in the names of the entry, and without the
        cases that were removed since.

    Raises:
        DataError: The table of a converted dataset contradicts the entry, or lacks a case; all reasons are listed.
    """
    table = read_case_table(folder)
    if table is None or is_composed(folder):
        return table
    fitting = _Fitting(table, entry, channel_names(dataset_json), frozenset(training))
    problems = [*fitting.find_problems()]
    if problems:
        raise DataError(
            f"{folder / FILE_NAME} does not fit the dataset:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nCorrect the one or the other. Without that file, planning makes the table from the registry's rules "
            "and the label maps, with each case a patient."
        )
    return fitting.fit()


def read_table_by_label(folder: Path) -> CaseTable | None:
    """Read the table of a converted dataset with the labels of dataset.json as names of the targets.

    Raises:
        DuplusError: The table does not fit the dataset.
    """
    table = read_case_table(folder)
    if table is None:
        return None
    dataset_json = read_dataset_json(folder / "dataset.json")
    entry = find_entry(folder.resolve().name, dataset_json, folder)
    table = read_raw_table(folder, entry, dataset_json, table.cases.keys()) or table
    labels = {target.name: target.label for target in entry.targets}

    def name(targets: Collection[str]) -> tuple[str, ...]:
        return tuple(labels[target] for target in targets)

    cases, tests = (
        {key: replace(case, annotated=name(case.annotated), present=name(case.present)) for key, case in part.items()}
        for part in (table.cases, table.tests)
    )
    sources = {key: replace(source, targets=name(source.targets)) for key, source in table.sources.items()}
    return replace(table, sources=sources, cases=cases, tests=tests)


def update_present(
    table: CaseTable, entry: Entry, dataset_json: Mapping[str, Any], labels: Mapping[str, Collection[int]]
) -> CaseTable:
    """Take from the label maps which targets each training case contains.

    Args:
        table: All cases.
        entry: The registry entry.
        dataset_json: The dataset's dataset.json.
        labels: The values in the label map of each training case.

    Raises:
        DataError: A label map has a target that is not annotated in its case, by the table.
    """
    values = {target.name: list_values(dataset_json["labels"][target.label]) for target in entry.targets}
    cases = {}
    for identifier, case in table.cases.items():
        labelled = set(labels[identifier])
        present = tuple(name for name in values if not labelled.isdisjoint(values[name]))
        wrong = [name for name in present if name not in case.annotated]
        if wrong:
            raise DataError(
                f"The label map of {identifier!r} contains {wrong[0]!r}, which is not annotated in that case by "
                f"{FILE_NAME}. Correct the table or the label map."
            )
        cases[identifier] = replace(case, present=present)
    return replace(table, cases=cases)


@dataclass(frozen=True)
class _Fitting:
    """A table, and what it has to fit."""

    table: CaseTable
    entry: Entry
    channels: tuple[str, ...]
    training: frozenset[str]

    @property
    def cases(self) -> dict[str, Case]:
        """The training cases that are still there."""
        return {name: case for name, case in self.table.cases.items() if name in self.training}

    @property
    def contexts(self) -> dict[str, str | None]:
        """Name in the entry of each source's context; None if there is no such context.

        Where table and entry have one context each, it may have been given another name since.
        """
        named = {name: source.context for name, source in self.table.sources.items()}
        only = [*self.entry.contexts] if len(set(named.values())) == 1 and len(self.entry.contexts) == 1 else []
        return {
            name: context if context in self.entry.contexts else (only[0] if only else None)
            for name, context in named.items()
        }

    def find_target(self, name: str) -> str | None:
        """Return the entry's name of a target, which may have become a synonym since; None if it has no such target."""
        try:
            return match_target(name, self.entry.targets)
        except PromptError:
            return None

    def find_problems(self) -> Iterator[str]:
        """Yield what contradicts the entry or the files."""
        missing = sorted(self.training - self.table.cases.keys())
        if missing:
            yield f"It lacks {len(missing)} of {len(self.training)} training cases: {_list_some(missing)}."
        unknown = sorted({self.table.sources[name].context for name, key in self.contexts.items() if key is None})
        if unknown:
            known = ", ".join(self.entry.contexts)
            yield f"Its context {unknown[0]!r} is not among those of {self.entry.origin}: {known}."
        names = {name for case in self.cases.values() for name in case.annotated}
        lost = sorted(name for name in names if self.find_target(name) is None)
        if lost:
            known = ", ".join(target.name for target in self.entry.targets)
            yield f"Its target {lost[0]!r} is not among those of {self.entry.origin}: {known}."
        if not unknown and not lost:
            yield from self._find_contradictions()

    def _find_contradictions(self) -> Iterator[str]:
        """Yield cases whose context or annotated targets the entry's rules contradict."""
        ruled: dict[str, str] = {}
        with suppress(RegistryError):  # where the rules do not say a context, the table does
            ruled = find_case_contexts(self.entry, self.cases, self.channels)
        optional = {target.name for target in self.entry.targets if target.missing == "not annotated"}
        for identifier, case in self.cases.items():
            context = str(self.contexts[case.source])
            if ruled.get(identifier, context) != context:
                yield (
                    f"Case {identifier!r} has the context {context!r} in it, and {ruled[identifier]!r} by the rules of "
                    f"{self.entry.origin}."
                )
                return
            unknown = optional | set(self.entry.contexts[context].not_annotated)
            extra = [name for name in set(case.annotated) - set(case.present) if self.find_target(name) in unknown]
            if extra:
                yield (
                    f"{min(extra)!r} is annotated in case {identifier!r} by it, and not annotated by "
                    f"{self.entry.origin}."
                )
                return

    def fit(self) -> CaseTable:
        """Return the table in the names of the entry."""
        assigned = {name: str(self.contexts[case.source]) for name, case in self.cases.items()}
        names = name_sources(self.entry, assigned)
        cases = {name: self._rename(case, names[assigned[name]]) for name, case in self.cases.items()}
        sources = describe_sources(self.entry, self.channels, names, cases)
        tests = {
            name: self._rename(case, names[context])
            for name, case in self.table.tests.items()
            if (context := str(self.contexts[case.source])) in names
        }
        return CaseTable(sources, cases, tests, self.table.spacing)

    def _rename(self, case: Case, source: str) -> Case:
        annotated, present = (tuple(map(str, map(self.find_target, part))) for part in (case.annotated, case.present))
        return Case(source, case.patient, annotated, present)


def _list_some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
