"""What the registry hands out: a dataset's contexts and targets, frozen, with no trace of how they were written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from duplus_nnunet.errors import PromptError, describe_unknown
from duplus_nnunet.prompt_registry.names import normalise

Missing = Literal["absent", "not annotated"]


@dataclass(frozen=True)
class Context:
    """One setting in which images are taken: a modality and a region of the body.

    Attributes:
        name: Key by which it is asked for, such as `amos_ct`.
        modality: Spelled out, such as `computed tomography`.
        region: Part of the body, such as `abdomen`.
        prompt: The context prompt (T1).
        paraphrases: Further wordings of T1, written by hand.
        channel: The channel name in dataset.json it belongs to, where a dataset has several.
    """

    name: str
    modality: str
    region: str
    prompt: str
    paraphrases: tuple[str, ...] = ()
    channel: str | None = None


@dataclass(frozen=True)
class Target:
    """One structure to segment.

    Attributes:
        label: Its key in the "labels" of dataset.json.
        name: Its name in plain English, such as `left kidney`.
        synonyms: Other names by which it may be asked for.
        partner: Name of the target it turns into in a mirror image (left and right).
        missing: What it means if a case does not contain the label.
        paraphrases: Further wordings of T2, written by hand; may hold `{modality}` and `{region}`.
    """

    label: str
    name: str
    synonyms: tuple[str, ...] = ()
    partner: str | None = None
    missing: Missing = "absent"
    paraphrases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """Everything the registry knows about one dataset.

    Attributes:
        dataset: The dataset's name.
        contexts: Contexts by name.
        default_context: The context that is meant where none is named.
        targets: One for each foreground label, in the order of dataset.json.
        origin: File it was read from, or "drafted from .../dataset.json".
        source: Paper or page that the list of labels comes from.
    """

    dataset: str
    contexts: Mapping[str, Context]
    default_context: str
    targets: tuple[Target, ...]
    origin: str
    source: str = ""


def match_target(text: str, targets: Iterable[Target]) -> str:
    """Find the name of the target that `text` means: a name, synonym or label in any case and spacing.

    Raises:
        PromptError: No target, or more than one, goes by that text.
    """
    targets = tuple(targets)
    wanted = normalise(text)
    matches = {target.name for target in targets if wanted in {normalise(word) for word in wordings(target)}}
    exact = {name for name in matches if normalise(name) == wanted}
    if len(matches) == 1 or len(exact) == 1:
        return (exact or matches).pop()
    if matches:
        listed = ", ".join(repr(name) for name in sorted(matches))
        raise PromptError(f"Target {text!r} may mean any of {listed}. Write one of these names.")
    raise PromptError(describe_unknown("target", text, (target.name for target in targets)))


def match_context(text: str, contexts: Mapping[str, Context]) -> str:
    """Find the name of the context that `text` means, in any case and spacing.

    Raises:
        PromptError: No context goes by that text.
    """
    for name in contexts:
        if normalise(name) == normalise(text):
            return name
    raise PromptError(describe_unknown("context", text, contexts))


def wordings(target: Target) -> tuple[str, ...]:
    """List all texts by which a target may be asked for: name, label, synonyms."""
    return tuple(dict.fromkeys((target.name, target.label, *target.synonyms)))
