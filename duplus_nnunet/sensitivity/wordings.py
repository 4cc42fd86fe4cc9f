"""Every wording of a model's targets, and how a target did by each: in come prompts, out come passes and scores."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.sentences import compose_prompt

Kind = Literal["T2", "synonym", "paraphrase", "T1", "T1 paraphrase"]


@dataclass(frozen=True)
class Wording:
    """One way of asking for a target.

    Attributes:
        target: Name of the target.
        kind: "T2" is the target's own prompt in the context's own T1; "synonym" and "paraphrase" are other wordings of
            T2; "T1 paraphrase" is another wording of the context, with the target's own T2; "T1" is "T2" once more,
            where it is compared with those.
        t1: Wording of the context.
        t2: Wording of the target.
    """

    target: str
    kind: Kind
    t1: str
    t2: str

    @property
    def text(self) -> str:
        """The part that is varied."""
        return self.t1 if self.kind.startswith("T1") else self.t2


@dataclass(frozen=True)
class Score:
    """Dice of one wording: by case, 0 to 1, higher is better; nan where the case does not hold the target."""

    wording: Wording
    by_case: Mapping[str, float]

    @property
    def dice(self) -> float:
        """Mean over the cases that hold the target; nan if none does."""
        known = [value for value in self.by_case.values() if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class TargetScores:
    """How a target did by each of its wordings.

    Attributes:
        target: Its name.
        value: Its label value, or those of a region.
        scores: One a wording; its own prompt stands first.
    """

    target: str
    value: int | list[int]
    scores: tuple[Score, ...]

    @property
    def spread(self) -> float:
        """Dice of the best wording less that of the worst, 0 to 1; lower is better."""
        return max(self._known, default=math.nan) - min(self._known, default=math.nan)

    @property
    def worst(self) -> Score:
        """The wording with the lowest Dice."""
        return min(self.scores, key=lambda score: math.inf if math.isnan(score.dice) else score.dice)

    @property
    def own(self) -> Score:
        """The target's own prompt."""
        return self.scores[0]

    @property
    def _known(self) -> list[float]:
        return [score.dice for score in self.scores if not math.isnan(score.dice)]


def list_wordings(bank: PromptBank, context: str, names: Sequence[str], with_contexts: bool) -> list[Wording]:
    """List the wordings of targets in a context.

    Args:
        bank: The model's prompts.
        context: Key of the context.
        names: Names of the targets.
        with_contexts: Add the paraphrases of T1, each with every target's own T2.
    """
    found = bank.contexts[context]
    t1, *others = found["sentences"]
    spelled = {
        target["name"]: {compose_prompt(found["modality"], word) for word in target.get("synonyms", ())}
        for target in bank.targets
    }
    prompts: Mapping[str, Sequence[str]] = found["target_prompts"]
    wordings = [
        Wording(name, _judge(text, prompts[name][0], spelled[name]), t1, text)
        for name in names
        for text in prompts[name]
    ]
    if with_contexts:
        wordings += [Wording(name, "T1 paraphrase", other, prompts[name][0]) for other in others for name in names]
    return wordings


def plan_passes(wordings: Sequence[Wording], most: int) -> Iterator[list[Wording]]:
    """Sort wordings into passes of the network: all of one T1 together, but no more than `most` maps at a time."""
    for _, group in itertools.groupby(wordings, key=lambda wording: wording.t1):
        yield from (list(part) for part in _batches(list(group), max(1, most)))


def _batches(items: list[Wording], size: int) -> Iterator[list[Wording]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _judge(text: str, own: str, synonyms: Collection[str]) -> Kind:
    """Tell T2, T2 with a synonym in it, and other wordings apart."""
    if text == own:
        return "T2"
    return "synonym" if text in synonyms else "paraphrase"
