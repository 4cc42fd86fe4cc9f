"""The registry entry of a dataset: its contexts and targets, as immutable data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from duplus_nnunet.errors import PromptError, describe_unknown
from duplus_nnunet.prompt_registry.names import normalise

Missing = Literal["absent", "not annotated"]


@dataclass(frozen=True)
class Context:
    """A context: an imaging modality and a body region.

    Attributes:
        name: Its key, such as `amos_ct`.
        modality: Modality, spelled out, such as `computed tomography`.
        region: Body region, such as `abdomen`.
        prompt: The context prompt.
        paraphrases: Other wordings of the context prompt, written by hand.
        channel: Name of its channel in dataset.json, where a dataset has one context for each channel.
        regions: Parts of the body that its images may show, such as `thigh`; if empty, `region` names them.
        cases: Names of its cases, or regular expressions that match whole names; without them, all names fit.
        ids: First and last of each range of numbers, one of which holds the last number in the name of a case.
        not_annotated: Names of targets that were not looked for in its cases where their label is missing.
    """

    name: str
    modality: str
    region: str
    prompt: str
    paraphrases: tuple[str, ...] = ()
    channel: str | None = None
    regions: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    ids: tuple[tuple[int, int], ...] = ()
    not_annotated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """One structure to segment.

    Attributes:
        label: Its key in the "labels" of dataset.json.
        name: Its name in plain English, such as `left kidney`.
        synonyms: Other names by which users may select it.
        partner: Name of the target that it becomes in a mirror image (left and right).
        missing: Meaning of a case without the label.
        paraphrases: Other wordings of the target prompt, written by hand; may contain `{modality}` and `{region}`.
        regions: Parts of the body that it may lie in, such as `thorax`; if empty, those of the contexts in which it is
            annotated, here or in a shipped file.
        tolerance_mm: Tolerance in mm of its normalised surface distance; None for the default of evaluations.
    """

    label: str
    name: str
    synonyms: tuple[str, ...] = ()
    partner: str | None = None
    missing: Missing = "absent"
    paraphrases: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    tolerance_mm: float | None = None


@dataclass(frozen=True)
class Entry:
    """The contexts and targets of one dataset.

    Attributes:
        dataset: Name of the dataset.
        contexts: Contexts by name.
        default_context: Name of the context that is used if the user names none.
        targets: One for each foreground label, in the order of dataset.json.
        origin: File that it was read from, or "drafted from .../dataset.json".
        source: Paper or web page that describes the labels.
    """

    dataset: str
    contexts: Mapping[str, Context]
    default_context: str
    targets: tuple[Target, ...]
    origin: str
    source: str = ""


def match_target(text: str, targets: Iterable[Target]) -> str:
    """Return the name of the target with the given name, synonym or label; case and separators do not matter.

    Raises:
        PromptError: No target matches the text, or more than one.
    """
    targets = tuple(targets)
    key = normalise(text)
    matches = {target.name for target in targets if key in {normalise(word) for word in wordings(target)}}
    exact = {name for name in matches if normalise(name) == key}
    if len(matches) == 1 or len(exact) == 1:
        return (exact or matches).pop()
    if matches:
        listed = ", ".join(repr(name) for name in sorted(matches))
        raise PromptError(f"Target {text!r} matches {listed}. Give one of these names.")
    raise PromptError(describe_unknown("target", text, (target.name for target in targets)))


def match_context(text: str, contexts: Mapping[str, Context]) -> str:
    """Return the name of the context with the given name; case and separators do not matter.

    Raises:
        PromptError: No context has that name.
    """
    for name in contexts:
        if normalise(name) == normalise(text):
            return name
    raise PromptError(describe_unknown("context", text, contexts))


def wordings(target: Target) -> tuple[str, ...]:
    """List all texts that select a target: its name, label and synonyms."""
    return tuple(dict.fromkeys((target.name, target.label, *target.synonyms)))
