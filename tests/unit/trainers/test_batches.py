"""What each image of a batch is asked for, and what counts."""

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import PlansError
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.trainers.batches import BatchPrompter, count_pairs, flip_images, list_pairs
from duplus_nnunet.trainers.cases import read_weights

from ..partial_plans import NAMES, make_plans, make_table


class Always:
    """A generator whose every draw is below one half."""

    def random(self) -> float:
        return 0.0


def make_prompter(**options: int) -> BatchPrompter:
    return BatchPrompter(PromptBank(make_plans()), make_table(), **options)


def test_a_batch_is_asked_for_what_is_annotated_in_any_of_its_images() -> None:
    chosen = make_prompter().choose(["a_1", "b_0"])
    assert chosen.names == ("liver", "left kidney")
    assert chosen.rows.tolist() == [0, 1]
    assert chosen.annotated.tolist() == [[False, True], [True, False]]


def test_each_image_is_asked_in_its_own_context() -> None:
    chosen = make_prompter().choose(["a_0", "b_0"])
    assert [context for context, _ in chosen.images] == ["ct", "mr"]
    assert chosen.sources == ("A", "B")


def test_without_a_generator_nothing_is_mirrored() -> None:
    assert make_prompter().choose(["a_0", "a_0"]).flipped == (False, False)


def test_a_mirrored_image_is_asked_for_the_partner() -> None:
    chosen = make_prompter().choose(["a_0"], Always())  # type: ignore[arg-type]
    assert chosen.flipped == (True,)
    assert chosen.names == NAMES
    assert chosen.images[0][1] == ("liver", "right kidney", "left kidney")


def test_one_side_that_was_contoured_alone_is_asked_for_as_the_other_in_the_mirror() -> None:
    chosen = make_prompter().choose(["a_1"], Always())  # type: ignore[arg-type]
    assert (chosen.names, chosen.images[0][1]) == (("left kidney",), ("right kidney",))
    assert chosen.annotated.tolist() == [[True]]


def test_a_side_without_partner_in_the_model_is_not_mirrored() -> None:
    plans = make_plans()
    for target in plans["duplus"]["targets"]:
        target["partner"] = None
    prompter = BatchPrompter(PromptBank(plans), make_table())
    assert prompter.choose(["a_0", "b_0"], Always()).flipped == (False, True)  # type: ignore[arg-type]


def test_an_image_whose_mirror_image_has_no_prompt_in_its_context_is_not_mirrored() -> None:
    plans = make_plans()
    context = plans["duplus"]["contexts"]["ct"]
    del context["target_prompts"]["right kidney"]
    context["targets"].remove("right kidney")
    prompter = BatchPrompter(PromptBank(plans), make_table())
    assert prompter.choose(["a_1"], Always()).flipped == (False,)  # type: ignore[arg-type]


def test_about_half_of_the_images_are_mirrored() -> None:
    flipped = make_prompter().choose(["a_0"] * 400, np.random.default_rng(0)).flipped
    assert 150 < sum(flipped) < 250


def test_the_number_of_targets_is_filled_up_with_some_that_do_not_count() -> None:
    chosen = make_prompter(multiple=2).choose(["a_1"])
    assert chosen.names == ("liver", "left kidney")
    assert chosen.annotated.tolist() == [[False, True]]


def test_ranks_that_sum_over_each_others_images_ask_for_everything() -> None:
    assert make_prompter(everything=True).choose(["b_0"]).names == NAMES


def test_only_the_chosen_images_are_mirrored_with_all_their_label_maps() -> None:
    data, fine = torch.randn(2, 1, 2, 3, 4), torch.randint(0, 3, (2, 1, 2, 3, 4))
    coarse = fine[..., ::2]
    flipped, labels = flip_images(data, [fine, coarse], (False, True), 2)
    assert torch.equal(flipped[0], data[0])
    assert torch.equal(flipped[1], data[1].flip(-1))
    assert torch.equal(labels[0][1], fine[1].flip(-1))
    assert torch.equal(labels[1][0], coarse[0])


def test_pairs_are_of_the_cases_that_are_there() -> None:
    assert list_pairs(make_table(), ["a_1", "b_0"]) == [("A", "left kidney"), ("B", "liver")]


def test_counts_of_unannotated_targets_are_left_out() -> None:
    chosen = make_prompter().choose(["a_1", "b_0"])
    sums = np.stack([[[5.0, 1], [6, 2], [7, 3]], [[10.0, 50], [20, 60], [30, 70]]], axis=1)
    counts = count_pairs(sums, chosen, {("A", "left kidney"): 0, ("B", "liver"): 1})
    assert counts.tolist() == [[1, 10], [2, 20], [3, 30]]


def test_weights_are_those_of_the_plans_unless_they_have_none() -> None:
    plans, table = make_plans(), make_table()
    assert read_weights(PromptBank(plans), table) == {"A": 2.0, "B": 1.0}  # cases
    plans["duplus"]["sources"] = {"A": {"context": "ct", "weight": 5.0}, "B": {"context": "mr", "weight": 0.5}}
    assert read_weights(PromptBank(plans), table) == {"A": 5.0, "B": 0.5}


def test_plans_without_one_of_the_datasets_sources_are_refused() -> None:
    plans = make_plans()
    plans["duplus"]["sources"] = {"A": {"context": "ct", "weight": 5.0}, "b": {"context": "mr", "weight": 0.5}}
    with pytest.raises(PlansError, match=r"lacks 'B'.*'A', 'b'"):
        read_weights(PromptBank(plans), make_table())
