"""Who was imaged: case identifiers and the user's patterns go in, a patient for every case comes out."""

import re
from collections.abc import Mapping, Sequence

from duplus_nnunet.data.composing.origins import Origin, find_dataset
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.errors import DataError


def find_patients(origins: Sequence[Origin], spec: Spec) -> dict[tuple[str, str], str]:
    """Find the patient of each case, by the source's dataset and the case's identifier there.

    Raises:
        DataError: A pattern does not find a patient, it is not clear whether two sources image the same people, or a
            patient is both in training and in test images.
    """
    datasets = [origin.dataset for origin in origins]
    patterns = {find_dataset(key, datasets, "patients"): text for key, text in spec.patients.patterns.items()}
    found = {
        origin.dataset: {
            identifier: _apply(patterns.get(origin.dataset), identifier, origin.dataset)
            for identifier in (*origin.training, *origin.tests)
        }
        for origin in origins
    }
    groups = _group(origins, spec, {dataset: set(ids.values()) for dataset, ids in found.items()})
    patients = {
        (dataset, identifier): f"{groups[dataset]}/{patient}"
        for dataset, ids in found.items()
        for identifier, patient in ids.items()
    }
    _check_held_out(origins, patients)
    return patients


def _apply(pattern: str | None, identifier: str, dataset: str) -> str:
    if pattern is None:
        return identifier
    match = re.search(pattern, identifier)
    patient = match and (match["patient"] if "patient" in match.re.groupindex else match[1])
    if not patient:
        raise DataError(
            f"The pattern {pattern!r} under `patients` finds no patient in case {identifier!r} of {dataset}. Change it "
            "so that it fits every case of that source."
        )
    return patient


def _group(origins: Sequence[Origin], spec: Spec, ids: Mapping[str, set[str]]) -> dict[str, str]:
    """Name, for each source, the people that it images: those of this source, or of several."""
    names = {origin.dataset: origin.name for origin in origins}
    shared = spec.patients.shared
    if shared is None:
        _refuse_doubt(ids)
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
            of_source[dataset] = "+".join(names[one] for one in names if one in group)
    return of_source


def _refuse_doubt(ids: Mapping[str, set[str]]) -> None:
    alike = [one for one in ids if any(ids[one] & ids[other] for other in ids if other != one)]
    if alike:
        example = min(ids[alike[0]] & set().union(*(ids[one] for one in alike[1:])))
        listed = ", ".join(alike)
        raise DataError(
            f"{listed} use the same case identifiers, such as {example!r}. Say in the specification (--spec) whether "
            f"these are the same people: `patients: {{shared: [[{listed}]]}}` if so, `patients: {{shared: false}}` if "
            "not."
        )


def _check_held_out(origins: Sequence[Origin], patients: Mapping[tuple[str, str], str]) -> None:
    tested = {
        patients[origin.dataset, identifier]: (origin, identifier) for origin in origins for identifier in origin.tests
    }
    for origin in origins:
        for identifier in origin.training:
            patient = patients[origin.dataset, identifier]
            if patient in tested:
                other, test = tested[patient]
                raise DataError(
                    f"The patient {patient!r} is in the training images of {origin.dataset} (case {identifier!r}) and "
                    f"in the test images of {other.dataset} (case {test!r}). Move one of them, so that the test "
                    "patients are new to the model."
                )
