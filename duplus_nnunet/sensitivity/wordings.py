"""Lists the wordings of the prompts of a model, and summarises the scores of each target by wording."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.sentences import compose_prompt

# What is varied is the target prompt, but for the last two kinds.
Kind = Literal["target prompt", "synonym", "paraphrase", "context prompt", "context paraphrase"]


@dataclass(frozen=True)
class Wording:
    """One wording of the prompts of a target.

    Attributes:
        target: Name of the target.
        kind: "target prompt" is the default target prompt with the default context prompt; "synonym" and "paraphrase"
            are other wordings of the target prompt; "context paraphrase" is another wording of the context prompt, with
            the default target prompt; "context prompt" is a copy of "target prompt" for comparison with those.
        context_prompt: The context prompt.
        target_prompt: The target prompt.
    """

    target: str
    kind: Kind
    context_prompt: str
    target_prompt: str

    @property
    def text(self) -> str:
        """The prompt that is varied: the context prompt or the target prompt."""
        return self.context_prompt if self.kind.startswith("context") else self.target_prompt


@dataclass(frozen=True)
class Score:
    """Dice of one wording by case, 0 to 1, higher is better; NaN if the case does not contain the target."""

    wording: Wording
    by_case: Mapping[str, float]

    @property
    def dice(self) -> float:
        """Mean over the cases that contain the target; NaN if none does."""
        known = [value for value in self.by_case.values() if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class TargetScores:
    """Scores of a target for each of its wordings.

    Attributes:
        target: Name of the target.
        value: Its label value, or the values of a region.
        scores: One score per wording, that of the default prompt first.
    """

    target: str
    value: int | list[int]
    scores: tuple[Score, ...]

    @property
    def spread(self) -> float:
        """Difference of Dice between the best and the worst wording, 0 to 1; lower is better."""
        return max(self._known, default=math.nan) - min(self._known, default=math.nan)

    @property
    def worst(self) -> Score:
        """The wording with the lowest Dice."""
        return min(self.scores, key=lambda score: math.inf if math.isnan(score.dice) else score.dice)

    @property
    def own(self) -> Score:
        """The score of the default prompt."""
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
        with_contexts: Whether to add the paraphrases of the context prompt, each with every default target prompt.
    """
    content = bank.contexts[context]
    context_prompt, *paraphrases = content.sentences
    synonyms = {
        target.name: {compose_prompt(content.modality, word) for word in target.synonyms} for target in bank.targets
    }
    prompts: Mapping[str, Sequence[str]] = content.target_prompts
    wordings = [
        Wording(name, _classify(text, prompts[name][0], synonyms[name]), context_prompt, text)
        for name in names
        for text in prompts[name]
    ]
    if with_contexts:
        wordings += [
            Wording(name, "context paraphrase", text, prompts[name][0]) for text in paraphrases for name in names
        ]
    return wordings


def plan_passes(wordings: Sequence[Wording], most: int) -> Iterator[list[Wording]]:
    """Group wordings into passes of the network: a pass has one context prompt and at most `most` wordings."""
    for _, group in itertools.groupby(wordings, key=lambda wording: wording.context_prompt):
        yield from _split_batches(list(group), max(1, most))


def _split_batches(items: list[Wording], size: int) -> Iterator[list[Wording]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _classify(text: str, default: str, synonyms: Collection[str]) -> Kind:
    """Classify a target prompt as the default one, the default one with a synonym, or a paraphrase."""
    if text == default:
        return "target prompt"
    return "synonym" if text in synonyms else "paraphrase"
