"""Makes the table of cases of a dataset that was not composed, from its registry entry and the values in label maps."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry import Entry
from duplus_nnunet.prompt_registry.case_contexts import find_case_contexts, name_channels
from duplus_nnunet.prompt_registry.dataset_labels import channel_names
from duplus_nnunet.prompt_registry.names import strip_dataset_number


def make_table(
    entry: Entry,
    dataset_json: Mapping[str, Any],
    training: Mapping[str, Collection[int]],
    tests: Mapping[str, Collection[int]] | None = None,
    patients: Mapping[str, str] | None = None,
    contexts: Mapping[str, str] | None = None,
) -> CaseTable:
    """Make the table of a dataset that was not composed: one source for each context.

    Args:
        entry: The dataset's registry entry.
        dataset_json: Its dataset.json.
        training: The label values in each training case.
        tests: The label values in each test case that has a label map.
        patients: The patient of each case, where it is known; else each case is a patient.
        contexts: The context of each case; by default, the rules of the entry say it.

    Raises:
        DuplusError: The rules do not say the context of a case, or a labelled test case has one that no training case
            has.
    """
    channels = channel_names(dataset_json)
    identifiers = [*training, *(tests or {})]
    assigned = find_case_contexts(entry, identifiers, channels) if contexts is None else contexts
    names = name_sources(entry, {identifier: assigned[identifier] for identifier in identifiers})
    values = {target.name: list_values(dataset_json["labels"][target.label]) for target in entry.targets}
    optional = {target.name for target in entry.targets if target.missing == "not annotated"}

    def describe(identifier: str, labels: Collection[int]) -> Case:
        context, labelled = entry.contexts[assigned[identifier]], set(labels)
        present = tuple(target for target in values if not labelled.isdisjoint(values[target]))
        unknown = optional | set(context.not_annotated)
        annotated = tuple(target for target in values if target in present or target not in unknown)
        return Case(names[context.name], (patients or {}).get(identifier, identifier), annotated, present)

    cases = {identifier: describe(identifier, labels) for identifier, labels in training.items()}
    described = {identifier: describe(identifier, labels) for identifier, labels in (tests or {}).items()}
    sources = describe_sources(entry, channels, names, cases)
    untrained = sorted({case.source for case in described.values()} - sources.keys())
    if untrained:
        raise DataError(
            f"{entry.dataset}: labelled test cases are of {untrained[0]!r}, but no training case is. Move them out of "
            "imagesTs and labelsTs, or add training cases of that context."
        )
    return CaseTable(sources, cases, described)


def describe_sources(
    entry: Entry, channels: Collection[str], names: Mapping[str, str], cases: Mapping[str, Case]
) -> dict[str, Source]:
    """Describe the sources that some training case has.

    Args:
        entry: The dataset's registry entry.
        channels: Names of the dataset's channels.
        names: Name of the source of each context.
        cases: The training cases.
    """
    annotated: dict[str, set[str]] = {}
    for case in cases.values():
        annotated.setdefault(case.source, set()).update(case.annotated)
    return {
        name: Source(
            entry.dataset,
            context,
            tuple(target.name for target in entry.targets if target.name in annotated[name]),
            name_channels(entry.contexts[context], tuple(channels)),
        )
        for context, name in names.items()
        if name in annotated
    }


def name_sources(entry: Entry, assigned: Mapping[str, str]) -> dict[str, str]:
    """Name the source of each context that some case has: the dataset's own name, and the context's if there are more.

    Args:
        entry: The dataset's registry entry.
        assigned: The context of each case.

    Returns:
        The name of each context's source, in the order of the entry's contexts.
    """
    name, used = strip_dataset_number(entry.dataset), [key for key in entry.contexts if key in assigned.values()]
    return {context: f"{name}-{context}" if len(used) > 1 else name for context in used}


def list_values(label: Any) -> set[int]:
    """Return the label values of a label in dataset.json, one or several."""
    return {int(value) for value in np.atleast_1d(label)}
