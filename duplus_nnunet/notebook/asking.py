"""Turns what a reader types into an answer that can be shown, with a colour of its own name."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from duplus_nnunet.errors import PromptError, list_nearest_first
from duplus_nnunet.outputs.answer import CaseAnswer, TargetAnswer
from duplus_nnunet.reporting.colours import colour_answer

_QUOTED = re.compile(r"""^(["'])(.+)\1$""")
_NEAREST = 3


class Answered(Protocol):
    """An answer about one structure."""

    @property
    def answer(self) -> CaseAnswer:
        """All of it."""

    @property
    def volumes(self) -> Mapping[str, float]:
        """Volume of each target, in ml."""


class Askable(Protocol):
    """An opened image, which answers questions about it."""

    context: str
    targets: list[str]

    @property
    def words(self) -> Sequence[str]:
        """Names, labels and synonyms of targets."""

    @property
    def contexts(self) -> Sequence[str]:
        """Contexts of the model."""

    def ask(self, target: str | None = None, prompt: str | None = None) -> Answered:
        """Ask for a target, or for another text."""

    def reopen(self, context: str, progress: Callable[[int, int], object] | None = None) -> "Askable":
        """Open the image in another context."""

    def close(self) -> None:
        """Forget what was computed."""


class UnknownTargetError(PromptError):
    """A text is no target of the context; it may be asked for as free text.

    Attributes:
        text: As it was typed.
    """

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


@dataclass(frozen=True)
class Shown:
    """An answer as it is shown.

    Attributes:
        title: Name of the target, marked if it was not seen in training.
        colour: As in pictures and legends, `#rrggbb`.
        volume: In ml, of the full mask.
        target: The prediction.
    """

    title: str
    colour: str
    volume: float
    target: TargetAnswer

    @property
    def is_found(self) -> bool:
        """Whether the structure is in the image."""
        return bool(self.target.mask.any())

    @property
    def measured(self) -> str:
        """Volume and presence in a few words."""
        volume = f"{self.volume:.2f} ml" if self.is_found else "not found"
        return volume if self.target.presence is None else f"{volume}, present {self.target.presence:.0%}"


class Questions:
    """The questions about an opened image, in one context.

    Args:
        scan: The image.

    Attributes:
        shown: Answers by title, in the order of the questions.
    """

    def __init__(self, scan: Askable) -> None:
        self.scan = scan
        self.shown: dict[str, Shown] = {}

    def ask(self, typed: str, *, is_free: bool = False) -> Shown:
        """Answer what was typed: a target, or free text if it is in quotation marks.

        Args:
            typed: By the reader.
            is_free: Whether it is free text without quotation marks.

        Raises:
            UnknownTargetError: It is no target of the context.
            DuplusError: It cannot be answered for another reason.
        """
        text = typed.strip()
        quoted = _QUOTED.match(text)
        prompt = quoted[2] if quoted else text
        answered = self.scan.ask(None, prompt) if quoted or is_free else self._ask_target(text)
        (target,) = answered.answer.targets
        shown = Shown(target.title, self._choose_colour(target), answered.volumes[target.name], target)
        self.shown[shown.title] = shown
        return shown

    def _ask_target(self, text: str) -> Answered:
        try:
            return self.scan.ask(text)
        except PromptError as error:
            nearest = ", ".join(map(repr, list_nearest_first(text, self.scan.targets)[:_NEAREST]))
            # The texts of a person are not repeated for a name that the model knows, in this context or another one.
            if text in self.scan.words or not nearest:
                raise
            message = f"{text!r} is no target of the context {self.scan.context}. Did you mean: {nearest}?"
            raise UnknownTargetError(message, text) from error

    def _choose_colour(self, target: TargetAnswer) -> str:
        """Choose the colour of other outputs; texts not seen in training share a label value, and get the next ones."""
        if target.title in self.shown:
            return self.shown[target.title].colour
        unseen = sum(not other.target.seen for other in self.shown.values())
        return colour_answer(target.value, target.seen, unseen)
