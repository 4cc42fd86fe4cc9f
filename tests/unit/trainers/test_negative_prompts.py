"""Targets that an image cannot show are asked for in training, and count as absent there."""

from typing import Any

import numpy as np
import torch

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.trainers.batches import BatchPrompter, BatchPrompts, count_pairs, list_pairs
from duplus_nnunet.trainers.loss import TargetLoss

from ..partial_plans import NAMES, make_plans

KIDNEYS = NAMES[1:]


def make_prompter(implausible: tuple[str, ...] = KIDNEYS, without: str = "", **options: Any) -> BatchPrompter:
    """The liver is annotated in MR images, which cannot show kidneys; kidneys alone are annotated in CT."""
    plans = make_plans()
    contexts = plans["duplus"]["contexts"]
    contexts["ct"]["targets"], contexts["mr"]["implausible"] = list(KIDNEYS), list(implausible)
    contexts["mr"]["target_prompts"].pop(without, None)
    sources = {"A": Source("A", "ct", KIDNEYS, ("CT",)), "B": Source("B", "mr", ("liver",), ("MR",))}
    cases = {"a": Case("A", "p0", KIDNEYS, KIDNEYS), "b": Case("B", "p1", ("liver",), ("liver",))}
    return BatchPrompter(PromptBank(plans), CaseTable(sources, cases), **{"negatives": 2, **options})


def choose(prompter: BatchPrompter, *keys: str, flip: bool = False) -> BatchPrompts:
    return prompter.choose(keys, np.random.default_rng(1) if flip else None, np.random.default_rng(0))


def test_by_default_there_are_none_and_the_generator_is_not_used() -> None:
    rng = np.random.default_rng(3)
    assert make_prompter(negatives=0).choose(["b"], None, rng).names == ("liver",)
    assert rng.random() == np.random.default_rng(3).random()


def test_the_log_says_which_there_are_or_that_there_are_none() -> None:
    assert make_prompter(negatives=0).describe_negatives() == ""
    assert make_prompter().describe_negatives().endswith("mr: left kidney, right kidney")
    assert make_prompter(()).describe_negatives().startswith("warning: ")


def test_validation_has_none() -> None:
    assert make_prompter().choose(["b"]).names == ("liver",)


def test_implausible_targets_count_in_images_that_cannot_show_them() -> None:
    chosen = choose(make_prompter(), "b")
    assert chosen.names == NAMES
    assert chosen.annotated.tolist() == [[True, True, True]]


def test_they_do_not_count_in_other_images() -> None:
    assert choose(make_prompter(), "a", "b").annotated.tolist() == [[False, True, True], [True, True, True]]


def test_a_target_whose_partner_is_plausible_is_none() -> None:
    assert choose(make_prompter(KIDNEYS[:1]), "b").names == ("liver",)


def test_no_more_are_drawn_than_are_allowed_and_each_is_drawn_at_some_time() -> None:
    prompter, rng = make_prompter(negatives=1), np.random.default_rng(0)
    drawn = [set(prompter.choose(["b"], None, rng).names) - {"liver"} for _ in range(20)]
    assert {len(names) for names in drawn} == {1}
    assert set().union(*drawn) == set(KIDNEYS)


def test_a_context_without_a_prompt_of_the_target_or_of_its_partner_has_none() -> None:
    assert choose(make_prompter(without="left kidney"), "b").names == ("liver",)


def test_a_mirrored_image_is_asked_for_the_absent_partner() -> None:
    chosen = choose(make_prompter(negatives=1), *["b"] * 8, flip=True)
    name = next(name for name in chosen.names if name != "liver")
    other = KIDNEYS[1 - KIDNEYS.index(name)]
    asked = {
        (flip, names[chosen.names.index(name)]) for flip, (_, names) in zip(chosen.flipped, chosen.images, strict=True)
    }
    assert asked == {(False, name), (True, other)}
    assert chosen.annotated.all()


def test_a_compiled_network_is_filled_up_after_them() -> None:
    chosen = choose(make_prompter(negatives=1, multiple=3), "b")
    assert chosen.names == NAMES
    assert chosen.annotated.sum() == 2


def test_ranks_that_ask_for_everything_count_the_drawn_ones_only() -> None:
    chosen = choose(make_prompter(negatives=1, everything=True), "b")
    assert chosen.names == NAMES
    assert chosen.annotated.sum() == 2


def test_they_are_in_no_online_score() -> None:
    prompter = make_prompter()
    chosen, pairs = choose(prompter, "b"), list_pairs(prompter.table, ["a", "b"])
    counts = count_pairs(np.ones((3, 1, 3)), chosen, {pair: index for index, pair in enumerate(pairs)})
    assert {pair: counts[0, index] for index, pair in enumerate(pairs)} == {
        ("A", "left kidney"): 0,
        ("A", "right kidney"): 0,
        ("B", "liver"): 1,
    }


def test_a_false_mask_of_one_costs_and_is_pushed_down() -> None:
    chosen = choose(make_prompter(), "b")
    labels = torch.zeros(1, 1, 4, 4, 4)
    labels[..., :2] = 1
    logits = torch.full((1, 3, 4, 4, 4), 2.0, requires_grad=True)
    loss = TargetLoss([1, 2, 3], batch_dice=False)
    loss.select(chosen.rows, chosen.annotated)
    loss(logits, labels).backward()
    assert logits.grad is not None
    assert bool((logits.grad[:, 1:] > 0).all())
