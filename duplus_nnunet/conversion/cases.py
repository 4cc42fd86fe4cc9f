"""Makes the table of cases of a converted dataset: source, patient, context and annotated targets of each case."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from duplus_nnunet.conversion.found_cases import FoundCase
from duplus_nnunet.conversion.loading import ConvertedCase
from duplus_nnunet.conversion.recipe import Recipe
from duplus_nnunet.data.case_table import FILE_NAME as CASE_TABLE
from duplus_nnunet.data.case_table import CaseTable, write_case_table
from duplus_nnunet.data.default_table import make_table
from duplus_nnunet.errors import DataError, RegistryError, describe_unknown
from duplus_nnunet.prompt_registry import Entry, find_entry
from duplus_nnunet.prompt_registry.case_contexts import count_contexts, find_case_contexts
from duplus_nnunet.prompt_registry.dataset_labels import channel_names
from duplus_nnunet.prompt_registry.drafting import DRAFTED


def write_cases(
    recipe: Recipe,
    dataset: str,
    dataset_json: Mapping[str, Any],
    cases: Sequence[FoundCase],
    done: Sequence[ConvertedCase],
    folder: Path,
) -> str:
    """Write duplus_cases.json into a dataset, if the registry says the context of each case.

    Args:
        recipe: The recipe.
        dataset: nnU-Net's name of the dataset.
        dataset_json: Its dataset.json.
        cases: The cases that were converted.
        done: What came of them.
        folder: Where the dataset is written.

    Returns:
        What was written, or why nothing was, a sentence.

    Raises:
        DataError: The recipe gives a group of cases a context that the registry does not have.
    """
    try:
        entry = find_entry(dataset, dataset_json, folder)
        contexts = _find_contexts(entry, cases, channel_names(dataset_json))
    except RegistryError as error:
        return f"No {CASE_TABLE} was written, since the contexts of the cases are not known: {error}"
    table = _make_table(entry, recipe, dataset_json, cases, done, contexts)
    write_case_table(table, folder)
    counts = count_contexts({case.name: contexts[case.name] for case in cases})
    is_drafted = entry.origin.startswith(DRAFTED)
    prompts = "drafted, since the registry does not know this dataset" if is_drafted else Path(entry.origin).name
    return f"{CASE_TABLE}: {len(cases)} cases by context: {counts}; prompts: {prompts}."


def _find_contexts(entry: Entry, cases: Sequence[FoundCase], channels: Sequence[str]) -> dict[str, str]:
    """Find the context of each case, by its group in the recipe, or else by the registry's rules."""
    given = {case.name: case.group.context for case in cases if case.group.context is not None}
    unknown = [name for name in given.values() if name not in entry.contexts]
    if unknown:
        text = describe_unknown("context", unknown[0], entry.contexts)
        raise DataError(f"`context` of the recipe: {text} They are defined in {entry.origin}.")
    others = [case.name for case in cases if case.name not in given]
    return given | (find_case_contexts(entry, others, channels) if others else {})


def _make_table(
    entry: Entry,
    recipe: Recipe,
    dataset_json: Mapping[str, Any],
    cases: Sequence[FoundCase],
    done: Sequence[ConvertedCase],
    contexts: Mapping[str, str],
) -> CaseTable:
    numbers = {label: number for number, label in enumerate(recipe.labels, start=1)}
    values = {case.name: {numbers[label] for label in case.present} for case in done}
    trained = {contexts[case.name] for case in cases if not case.group.test}
    kept = [case for case in cases if contexts[case.name] in trained]
    table = make_table(
        entry,
        dataset_json,
        {case.name: values[case.name] for case in kept if not case.group.test},
        {case.name: values[case.name] for case in kept if case.group.test},
        {case.name: case.patient for case in kept},
        contexts,
    )
    unlabelled = {case.name for case in kept if case.group.test and not case.is_labelled}
    tests = {
        name: replace(case, annotated=(), present=()) if name in unlabelled else case
        for name, case in table.tests.items()
    }
    return replace(table, tests=tests)
