"""Assigns a patient to every case, by the patterns of the specification, its table of cases, or its name."""

import re
from collections.abc import Mapping, Sequence

from duplus_nnunet.data.composing.source_datasets import SourceDataset, find_dataset
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.errors import DataError


def find_patients(sources: Sequence[SourceDataset], spec: Spec) -> dict[tuple[str, str], str]:
    """Find the patient of each case, by the dataset of its source and its identifier there.

    Raises:
        DataError: A pattern does not match a case, sources use the same identifiers and the specification does not
            state whether they are the same patients, or a patient is in both training and test images.
    """
    datasets = [source.dataset for source in sources]
    patterns = {find_dataset(key, datasets, "patients"): text for key, text in spec.patients.patterns.items()}
    identified = {
        source.dataset: {
            identifier: _apply(patterns.get(source.dataset), identifier, source)
            for identifier in (*source.training, *source.tests)
        }
        for source in sources
    }
    groups = _group(sources, spec, {dataset: set(ids.values()) for dataset, ids in identified.items()})
    patients = {
        (dataset, identifier): f"{groups[dataset]}/{patient}"
        for dataset, ids in identified.items()
        for identifier, patient in ids.items()
    }
    _check_held_out(sources, patients)
    return patients


def _apply(pattern: str | None, identifier: str, source: SourceDataset) -> str:
    if pattern is None:
        return source.known[identifier].patient if identifier in source.known else identifier
    match = re.search(pattern, identifier)
    patient = match and (match["patient"] if "patient" in match.re.groupindex else match[1])
    if not patient:
        raise DataError(
            f"The pattern {pattern!r} under `patients` does not match case {identifier!r} of {source.dataset}. Change "
            "it so that it fits every case of that source."
        )
    return patient


def _group(sources: Sequence[SourceDataset], spec: Spec, ids: Mapping[str, set[str]]) -> dict[str, str]:
    """Name the group of patients of each source: its own, or one that several sources share."""
    names = {source.dataset: source.name for source in sources}
    shared = spec.patients.shared
    if shared is None:
        _require_distinct_identifiers(ids)
    groups: list[list[str]] = []
    if shared is True:
        groups = [list(names)]
    elif isinstance(shared, list):
        groups = [[find_dataset(key, names, "patients") for key in group] for group in shared]
    of_source = dict(names)
    for group in groups:
        for dataset in group:
            if of_source[dataset] != names[dataset]:
                raise DataError(f"`patients: shared:` of the specification names {dataset} twice. Name it once.")
            of_source[dataset] = "+".join(name for member, name in names.items() if member in group)
    return of_source


def _require_distinct_identifiers(ids: Mapping[str, set[str]]) -> None:
    sharing = [name for name in ids if any(ids[name] & ids[other] for other in ids if other != name)]
    if sharing:
        example = min(ids[sharing[0]] & set().union(*(ids[name] for name in sharing[1:])))
        listed = ", ".join(sharing)
        raise DataError(
            f"{listed} use the same case identifiers, such as {example!r}. State in the specification (--spec) whether "
            f"these are the same patients: `patients: {{shared: [[{listed}]]}}` if so, `patients: {{shared: false}}` "
            "if not."
        )


def _check_held_out(sources: Sequence[SourceDataset], patients: Mapping[tuple[str, str], str]) -> None:
    tested = {
        patients[source.dataset, identifier]: (source, identifier) for source in sources for identifier in source.tests
    }
    for source in sources:
        for identifier in source.training:
            patient = patients[source.dataset, identifier]
            if patient in tested:
                other, test = tested[patient]
                raise DataError(
                    f"The patient {patient!r} is in the training images of {source.dataset} (case {identifier!r}) and "
                    f"in the test images of {other.dataset} (case {test!r}). Move one of them; test patients must not "
                    "be used in training."
                )
