"""Reads the specification of a composed dataset, a YAML file, and reports every problem in it with its line."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from duplus_nnunet.errors import DataError, list_nearest_first
from duplus_nnunet.prompt_registry.schema import Region
from duplus_nnunet.yaml_files import Keys, MarkedYaml, Problem, read_marked_yaml


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        message = f"{text!r} is not a valid regular expression ({error})"
        raise ValueError(message) from error
    return text


def _check_patient_pattern(text: str) -> str:
    groups = re.compile(_check_pattern(text))
    if groups.groups != 1 and "patient" not in groups.groupindex:
        message = f"{text!r} has {groups.groups} groups; mark the patient by one group, such as '(STS_[0-9]+)', or name"
        raise ValueError(f"{message} the group '(?P<patient>...)'")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# A dataset's number, name, or name without number.
SourceName = Annotated[int | Text, Field(description="source")]
Pattern = Annotated[Text, AfterValidator(_check_pattern)]
PatientPattern = Annotated[Text, AfterValidator(_check_patient_pattern)]
FileName = Annotated[Text, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PatientsForm(_Strict):
    """The mapping under `patients:`.

    Attributes:
        patterns: By source, a regular expression that finds the patient in a case identifier, with one group or one
            named `patient`. In a source without a pattern each case is a patient.
        shared: Groups of sources in which equal identifiers mean the same patient; true for all, false for none.
    """

    patterns: dict[SourceName, PatientPattern] = {}
    shared: bool | list[list[SourceName]] | None = None


class Spec(_Strict):
    """A specification; every key may be left out.

    Attributes:
        sources: The sources, by name, for a specification of datasets that have other numbers with each user.
        names: Name of a source in case identifiers; by default the dataset's name without its number.
        targets: By source, new names of targets by their labels; targets with equal names are merged.
        skip: By source, labels or names of targets that are left out.
        contexts: By source, the context of its cases, or of those whose identifier matches a pattern. For a source
            whose channels are split, the context of each channel by its number.
        split_channels: Whether each channel becomes a source of its own, for all sources or for those listed.
        channels: By source, the names of the channels that are used, where they are split; by default all.
        regions: By source, the parts of the body that its images may show, such as [thigh], or [anywhere]; by default,
            the regions of its contexts.
        patients: Which cases belong to the same patient.
        spacing: Whether each context has a target spacing of its own (context) or all share one (shared).
        folds: Number of folds.
        seed: Seed of the random split.
        splits: File with the user's own folds, relative to the specification.
    """

    sources: list[Text] = []
    names: dict[SourceName, FileName] = {}
    targets: dict[SourceName, dict[Text, Text]] = {}
    skip: dict[SourceName, list[Text]] = {}
    contexts: dict[SourceName, Text | dict[int | Pattern, Text]] = {}
    split_channels: bool | list[SourceName] = False
    channels: dict[SourceName, list[Text]] = {}
    regions: dict[SourceName, list[Region]] = {}
    patients: PatientsForm = PatientsForm()
    spacing: Literal["context", "shared"] = "context"
    folds: int = Field(default=5, ge=2)
    seed: int = Field(default=12345, ge=0)
    splits: Text | None = None


def read_spec(path: Path | None) -> Spec:
    """Read a specification; without a file, return the defaults.

    Raises:
        DataError: The specification has problems; the message lists all of them, one on each line.
    """
    if path is None:
        return Spec()
    marks = read_marked_yaml(path)
    problems = list(marks.problems)
    spec = None if problems else _read_form(marks, problems)
    if spec is not None and spec.splits is not None and spec.model_fields_set & {"folds", "seed"}:
        text = "`splits` names a file, so `folds` and `seed` have no effect. Remove either `splits` or these."
        problems.append(Problem(marks.file, marks.line_of(("splits",)), text))
    if spec is None or problems:
        raise DataError("\n".join(map(str, problems)))
    return spec


def _read_form(marks: MarkedYaml, problems: list[Problem]) -> Spec | None:
    data = marks.data
    if data is None:
        return Spec()
    if not isinstance(data, dict):
        text = f"Expected a mapping with some of the keys {', '.join(Spec.model_fields)}, found {data!r}."
        problems.append(Problem(marks.file, 1, text))
        return None
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        # Where a value may have one of several types, each of them reports an error: the last one is enough.
        errors = {_find_keys(marks, tuple(item["loc"])): item for item in error.errors()}
        problems += [_translate(marks, keys, item["type"], item["msg"], item["input"]) for keys, item in errors.items()]
        return None


def _find_keys(marks: MarkedYaml, loc: Keys) -> Keys:
    """Keep the part of pydantic's path that exists in the file."""
    keys: Keys = ()
    for step in loc:
        keys = next(((*keys, key) for key in (step, str(step)) if (*keys, key) in marks.lines), keys)
    return keys


def _translate(marks: MarkedYaml, keys: Keys, kind: str, text: str, value: Any) -> Problem:
    if kind == "extra_forbidden":
        form = Spec if len(keys) == 1 else PatientsForm
        listed = ", ".join(list_nearest_first(str(keys[-1]), form.model_fields))
        message = f"Unknown key {str(keys[-1])!r}. Did you mean one of: {listed}?"
    else:
        where = " -> ".join(map(str, keys)) or "the file"
        message = f"{where}: {text.removeprefix('Value error, ')}; found {value!r}."
    return Problem(marks.file, marks.line_of(keys), message)
