"""What a reader types becomes an answer with a name and a colour, or a message that helps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.notebook.asking import Questions, UnknownTargetError
from duplus_nnunet.outputs.answer import CaseAnswer, Geometry, TargetAnswer
from duplus_nnunet.reporting.colours import colour

GEOMETRY = Geometry((4, 5, 6), (1.0, 1.0, 1.0), {})
NAMES = ["liver", "spleen", "left kidney"]


@dataclass(frozen=True)
class FakeAnswer:
    answer: CaseAnswer

    @property
    def volumes(self) -> dict[str, float]:
        return {target.name: float(target.mask.sum()) for target in self.answer.targets}


@dataclass
class FakeScan:
    """An opened image in which each target is a cube; the spleen is not there."""

    context: str = "ct"
    targets: list[str] = field(default_factory=lambda: list(NAMES))
    presence: float | None = None
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    is_open: bool = True

    @property
    def words(self) -> list[str]:
        return [*self.targets, "hepar"]

    @property
    def contexts(self) -> list[str]:
        return ["ct", "mr"]

    def ask(self, target: str | None = None, prompt: str | None = None) -> FakeAnswer:
        self.asked.append((target, prompt))
        if not self.is_open:
            raise DataError("The image was closed.")
        name = "liver" if target in {"hepar", "Liver"} else target
        if prompt is None and name not in self.targets:
            raise PromptError(f"Unknown target {name!r}. Valid: all of the names of the model.")
        mask = np.full((2, 2, 2), name != "spleen")
        value = NAMES.index(name) + 1 if name in NAMES else len(NAMES) + 1
        box = (slice(1, 3), slice(2, 4), slice(3, 5))
        made = TargetAnswer(
            name or str(prompt), value, "", box, mask, np.zeros((2, 2, 2), np.float16), self.presence, prompt is None
        )
        return FakeAnswer(CaseAnswer("", self.context, "", GEOMETRY, np.zeros((4, 5, 6), np.uint8), (made,)))

    def reopen(self, context: str, progress: Callable[[int, int], object] | None = None) -> "FakeScan":
        if progress is not None:
            progress(0, 1)
        if context not in self.contexts:
            raise PromptError(f"Unknown context {context!r}.")
        return FakeScan(context, ["liver"])

    def close(self) -> None:
        self.is_open = False


def test_a_target_keeps_the_colour_that_it_has_in_pictures() -> None:
    shown = Questions(FakeScan(presence=0.987)).ask(" left kidney ")
    assert (shown.title, shown.colour, shown.volume) == ("left kidney", colour(3), 8.0)
    assert shown.measured.startswith("8.00 ml")
    assert "99%" in shown.measured


def test_a_synonym_is_shown_under_the_name_of_its_target() -> None:
    questions = Questions(FakeScan())
    questions.ask("hepar")
    questions.ask("Liver")
    assert list(questions.shown) == ["liver"]


def test_a_structure_that_is_not_there_is_said_not_to_be_found() -> None:
    shown = Questions(FakeScan()).ask("spleen")
    assert not shown.is_found
    assert "ml" not in shown.measured


@pytest.mark.parametrize("typed", ['"a stent"', "'a stent'"])
def test_a_text_in_quotation_marks_is_free_text(typed: str) -> None:
    scan = FakeScan()
    shown = Questions(scan).ask(typed)
    assert scan.asked == [(None, "a stent")]
    assert shown.title != "a stent"
    assert shown.title.startswith("a stent")


def test_a_word_that_is_no_target_is_never_taken_for_free_text() -> None:
    scan = FakeScan()
    questions = Questions(scan)
    with pytest.raises(UnknownTargetError, match="'liver'") as caught:
        questions.ask("livr")
    assert scan.asked == [("livr", None)]
    assert caught.value.text == "livr"
    assert questions.ask("livr", is_free=True).target.name == "livr"


def test_free_texts_that_share_a_label_value_get_colours_of_their_own() -> None:
    questions = Questions(FakeScan())
    colours: list[Any] = [questions.ask(text).colour for text in ('"a stent"', '"a clip"', '"a stent"')]
    assert colours == [colour(4), colour(5), colour(4)]


def test_other_errors_are_those_of_the_image() -> None:
    scan = FakeScan()
    scan.close()
    with pytest.raises(DataError, match="closed"):
        Questions(scan).ask("liver")
