"""Defines the form of a registry file and checks each value; registry_file.py compares values with each other."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from duplus_nnunet.errors import list_nearest_first
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.regions import check_region

# The default encoder reads 256 tokens and CLIP text towers 77; 300 characters of English stay below the latter.
LONGEST_TEXT = 300

MODALITIES = (
    "computed tomography",
    "cone-beam computed tomography",
    "single-photon emission computed tomography",
    "positron emission tomography",
    "magnetic resonance imaging",
    "magnetic resonance angiography",
    "ultrasound",
    "x-ray imaging",
    "optical coherence tomography",
    "microscopy",
    "medical image",
)
_SHORT_MODALITIES = {
    "ct": "computed tomography",
    "cta": "contrast-enhanced computed tomography",
    "cbct": "cone-beam computed tomography",
    "mr": "magnetic resonance imaging",
    "mri": "magnetic resonance imaging",
    "pet": "positron emission tomography",
    "spect": "single-photon emission computed tomography",
    "us": "ultrasound",
    "oct": "optical coherence tomography",
}


def _check_text(text: str) -> str:
    if not normalise(text):
        message = "the text is empty; write a name or remove it"
        raise ValueError(message)
    return text


def _check_modality(modality: str) -> str:
    if any(known in modality.casefold() for known in MODALITIES):
        return modality
    short = _SHORT_MODALITIES.get(normalise(modality))
    if short:
        message = (
            f"unknown modality {modality!r}; spell it out as {short!r}, since text encoders do not know abbreviations"
        )
        raise ValueError(message)
    listed = ", ".join(repr(known) for known in list_nearest_first(modality, MODALITIES))
    message = f"unknown modality {modality!r}; use one of these, alone or with words before or after it: {listed}"
    raise ValueError(message)


def _check_cases(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        message = f"{pattern!r} is neither a case name nor a valid regular expression ({error})"
        raise ValueError(message) from error
    return pattern


def read_ids(text: str | int) -> tuple[int, int]:
    """Return the first and the last number of a range of ids, such as `1-500` or `507`."""
    numbers = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", str(text).strip())
    return (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (1, 0)


def _check_ids(text: str | int) -> str | int:
    low, high = read_ids(text)
    if low > high:
        message = f"{text!r} is not a range of numbers; write the first and the last one, such as 1-500, or a number"
        raise ValueError(message)
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=LONGEST_TEXT), AfterValidator(_check_text)]
Modality = Annotated[Text, AfterValidator(_check_modality)]
CasePattern = Annotated[Text, AfterValidator(_check_cases)]
Ids = Annotated[str | int, AfterValidator(_check_ids)]
Region = Annotated[Text, AfterValidator(check_region)]
Length = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Missing = Literal["absent", "not annotated"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ContextForm(_Strict):
    """One item under `contexts:`.

    Attributes:
        modality: Modality, spelled out, such as `computed tomography`; words before or after it are allowed.
        region: Body region, such as `abdomen`.
        prompt: The context prompt; by default it is composed of modality and region.
        paraphrases: Other wordings of the context prompt, drawn in training.
        channel: Name of its channel in dataset.json, where a dataset has one context for each channel.
        cases: Names of its cases, or regular expressions that match whole names, where a dataset has several contexts.
        ids: Ranges of the last number in a case name, such as `[1-500]`, for the same purpose.
        not_annotated: Targets that count as not annotated in its cases where their label is missing.
        regions: Parts of the body that its images may show, such as `[thigh]` or `[anywhere]`; by default, `region`.
    """

    modality: Modality
    region: Text
    prompt: Text | None = None
    paraphrases: list[Text] = []
    channel: Text | None = None
    cases: list[CasePattern] = []
    ids: list[Ids] = []
    not_annotated: list[Text] = []
    regions: list[Region] = []


class TargetForm(_Strict):
    """One item under `targets:`.

    Attributes:
        labels: Its keys in the "labels" of dataset.json, if they differ from the name.
        synonyms: Other names by which users may select it.
        paraphrases: Other wordings of the target prompt, drawn in training; `{modality}` and `{region}` are filled in.
        partner: The target that it becomes in a mirror image, or `none`; left and right are paired by their names.
        missing: Meaning of a case without the label, if it differs from that of the file.
        regions: Parts of the body that it may lie in, such as `[neck, thorax]` or `[anywhere]`; by default, those of
            the contexts in which it is annotated, here or in a shipped file.
        tolerance_mm: Tolerance in mm of its normalised surface distance in evaluations; by default, 2.
    """

    labels: list[Text] = []
    synonyms: list[Text] = []
    paraphrases: list[Text] = []
    partner: Text | None = None
    missing: Missing | None = None
    regions: list[Region] = []
    tolerance_mm: Length | None = None


class FileForm(_Strict):
    """A registry file.

    Attributes:
        dataset: Name of the dataset.
        datasets: Further names of datasets that the file is for, with or without nnU-Net's number.
        source: Paper or web page that describes the labels.
        contexts: Contexts by name.
        default_context: Name of the context that is used if none is given; by default, the first one.
        missing: What it means if a case lacks a label: the structure is absent, or it was not annotated.
        partial: Whether a dataset may have only some of the targets.
        targets: Targets by name, in plain English; a target may have no further keys.
    """

    dataset: Text
    datasets: list[Text] = []
    source: str = ""
    contexts: dict[Text, ContextForm] = Field(min_length=1)
    default_context: Text | None = None
    missing: Missing = "absent"
    partial: bool = False
    targets: dict[Text, TargetForm | None] = Field(min_length=1)
