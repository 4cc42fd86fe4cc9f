import pytest

from duplus_nnunet.errors import PromptError
from duplus_nnunet.prompt_registry import Context, Target, match_context, match_target

KIDNEYS = (
    Target("kidney_left", "left kidney", ("LK",), "right kidney"),
    Target("kidney_right", "right kidney", ("RK",), "left kidney"),
)
CONTEXTS = {name: Context(name, "computed tomography", "abdomen", "T1") for name in ("amos_ct", "amos_mr")}


@pytest.mark.parametrize("text", ["left kidney", "LEFT_KIDNEY", "lk", "kidney_left", "Kidney-Left"])
def test_a_target_goes_by_name_synonym_and_label_in_any_case(text: str) -> None:
    assert match_target(text, KIDNEYS) == "left kidney"


def test_an_unknown_target_lists_the_nearest_first() -> None:
    with pytest.raises(PromptError, match=r"'right kidny'. Did you mean 'right kidney'"):
        match_target("right kidny", KIDNEYS)


def test_a_name_wins_over_another_targets_label() -> None:
    targets = (Target("tumor", "kidney"), Target("kidney", "kidney with masses"))
    assert match_target("kidney", targets) == "kidney"


def test_a_word_of_two_targets_is_refused() -> None:
    targets = (Target("a", "first", ("mass",)), Target("b", "second", ("mass",)))
    with pytest.raises(PromptError, match=r"'first', 'second'"):
        match_target("mass", targets)


def test_a_context_is_found_in_any_case() -> None:
    assert match_context("AMOS CT", CONTEXTS) == "amos_ct"


def test_an_unknown_context_lists_the_valid_ones() -> None:
    with pytest.raises(PromptError, match=r"Unknown context 'amos_pet'.*'amos_ct'.*'amos_mr'|'amos_mr'.*'amos_ct'"):
        match_context("amos_pet", CONTEXTS)
