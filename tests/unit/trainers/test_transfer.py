"""What images are told in training, so that targets are found in other contexts."""

from typing import Any

import numpy as np
import pytest
import torch

from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_form import PlannedContext
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import parse_settings
from duplus_nnunet.trainers.batches import BatchPrompter
from duplus_nnunet.trainers.text_adaptation import StoredTexts
from duplus_nnunet.trainers.transfer import describe_imitation, list_possible, vary_prompts

from ..partial_plans import LENGTH, make_plans, make_table


def make_bank(**transfer: Any) -> PromptBank:
    plans = make_plans()
    plans["duplus"]["settings"] = {"transfer": transfer}
    return PromptBank(plans)


def vary(seed: int = 0, images: int = 1, **transfer: Any) -> Any:
    bank = make_bank(**transfer)
    chosen = BatchPrompter(bank, make_table()).choose(["a_0"] * images)
    return vary_prompts(chosen, bank, 1, np.random.default_rng(seed))


def test_by_default_nothing_is_drawn_or_hidden() -> None:
    bank, rng = make_bank(), np.random.default_rng(0)
    chosen = BatchPrompter(bank, make_table()).choose(["a_0", "b_0"])
    assert vary_prompts(chosen, bank, 1, rng) == (chosen, ())
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(("name", "index"), [("context_dropout", 0), ("modality_dropout", 1)])
def test_prompts_are_hidden_from_about_the_probable_share_of_images(name: str, index: int) -> None:
    _, hidden = vary(images=1000, **{name: 0.3})
    assert 250 < sum(told[index] for told in hidden) < 350
    assert not any(told[1 - index] for told in hidden)


def test_equal_seeds_hide_the_same() -> None:
    assert vary(3, 20, context_dropout=0.5)[1] == vary(3, 20, context_dropout=0.5)[1]


def test_a_remapped_image_is_told_names_alone() -> None:
    chosen, hidden = vary(contrast_augmentation=1.0, remapped_prompts="none")
    assert chosen.remapping.chosen == (True,)
    assert (list(hidden), chosen.images[0][0]) == ([(True, True)], "ct")


def test_a_remapped_image_imitates_any_context() -> None:
    chosen, hidden = vary(images=50, contrast_augmentation=1.0)
    assert {context for context, _ in chosen.images} == {"ct", "mr"}
    assert hidden == ()


def make_context(region: str, prompts: str = "liver spleen", implausible: str = "") -> PlannedContext:
    return PlannedContext(
        sentences=["text"], target_prompts={name: ["text"] for name in prompts.split()},
        implausible=implausible.split(), region=region,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("other", "counted", "possible"),
    [
        (make_context("abdomen"), "liver", True),
        (make_context("pelvis"), "liver", True),
        (make_context("head"), "liver", False),
        (make_context("somewhere"), "liver", True),
        (make_context("abdomen", prompts="spleen"), "liver", False),
        (make_context("abdomen", prompts="spleen"), "spleen", True),
        (make_context("abdomen", implausible="liver"), "liver", False),
        (make_context("abdomen", "liver brain", "brain"), "brain", True),
        (make_context("abdomen", "liver brain"), "brain", False),
        (make_context("abdomen", prompts="", implausible="liver"), "", True),
    ],
)
def test_an_image_imitates_contexts_that_it_could_be_of(other: PlannedContext, counted: str, possible: bool) -> None:
    own = make_context("abdomen", "liver spleen brain", implausible="brain")
    listed = list_possible({"own": own, "other": other}, "own", counted.split())
    assert listed == (["own", "other"] if possible else ["own"])


def test_the_log_says_what_is_imitated() -> None:
    assert describe_imitation(make_bank()) == []
    assert describe_imitation(make_bank(contrast_augmentation=0.5, remapped_prompts="none")) == []
    bank = make_bank(contrast_augmentation=0.5)
    assert describe_imitation(bank) == ["remapped images of ct imitate mr", "remapped images of mr imitate ct"]
    mr = bank.contexts["mr"].model_copy(update={"target_prompts": {"liver": ["MR of liver"]}})
    bank.contexts = {"ct": bank.contexts["ct"], "mr": mr}
    imitating, alone = describe_imitation(bank)
    assert imitating == "remapped images of mr imitate ct"
    assert alone.startswith("warning: remapped images of ct imitate no other")


def test_no_remapped_image_is_given_a_borrowed_prompt() -> None:
    bank = make_bank(contrast_augmentation=1.0)
    mr = bank.contexts["mr"].model_copy(update={"target_prompts": {"liver": ["MR of liver"]}})
    bank.contexts = {"ct": bank.contexts["ct"], "mr": mr}
    chosen = BatchPrompter(bank, make_table()).choose(["a_0"] * 50)
    varied, _ = vary_prompts(chosen, bank, 1, np.random.default_rng(0))
    assert {context for context, _ in varied.images} == {"ct"}


def test_an_image_that_is_not_remapped_keeps_its_context() -> None:
    chosen, _ = vary(images=200, contrast_augmentation=0.5)
    kept = {context for (context, _), new in zip(chosen.images, chosen.remapping.chosen, strict=True) if not new}
    assert kept == {"ct"}


def test_what_is_annotated_does_not_depend_on_the_imitated_context() -> None:
    chosen, _ = vary(images=20, contrast_augmentation=1.0)
    assert bool(chosen.annotated.all())
    assert all(names == chosen.names for _, names in chosen.images)


def test_hidden_parts_are_0_and_the_others_unchanged() -> None:
    bank, rng = make_bank(), np.random.default_rng(0)
    images = [("ct", ["liver"]), ("ct", ["liver"]), ("ct", ["liver"])]
    told = StoredTexts(bank).draw(images, rng, 0.0)
    hidden = StoredTexts(bank).draw(images, rng, 0.0, [(False, False), (True, False), (False, True)])
    assert torch.equal(hidden.context[::2], told.context[::2])
    assert not bool(hidden.context[1].any())
    assert torch.equal(hidden.targets[:2], told.targets[:2])
    assert not bool(hidden.targets[2, :, :LENGTH].any())
    assert torch.equal(hidden.targets[2, :, LENGTH:], told.targets[2, :, LENGTH:])


def test_hidden_prompts_are_not_looked_up_in_a_table() -> None:
    images, rng = [("ct", ["liver"])], np.random.default_rng(0)
    assert StoredTexts(make_bank()).draw(images, rng, 0.0).rows is not None
    assert StoredTexts(make_bank()).draw(images, rng, 0.0, [(True, False)]).rows is None


def test_a_hidden_sentence_leaves_numbers_as_they_are() -> None:
    plans = make_plans()
    plans["duplus"]["settings"] = {"target_prompt": "one-hot"}
    bank, rng = PromptBank(plans), np.random.default_rng(0)
    images = [("ct", bank.names)]
    hidden = StoredTexts(bank).draw(images, rng, 0.0, [(True, True)])
    assert torch.equal(hidden.targets, StoredTexts(bank).draw(images, rng, 0.0).targets)


def test_a_prediction_is_told_everything_whatever_was_hidden_in_training() -> None:
    plain, varied = make_bank().draw("ct"), make_bank(modality_dropout=1.0, context_dropout=1.0).draw("ct")
    assert torch.equal(plain.context, varied.context)
    assert torch.equal(plain.targets, varied.targets)


@pytest.mark.parametrize(
    "content", [{"modality_dropout": 1.5}, {"region_contrast": -1.0}, {"remapped_prompts": "own"}, {"contrast": 0.5}]
)
def test_settings_out_of_range_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(PlansError, match="transfer"):
        parse_settings({"transfer": content})


def test_by_name_alone_a_target_has_the_same_prompt_in_every_context() -> None:
    plans = make_plans()
    told = PromptBank(plans).draw("ct")
    plans["duplus"]["settings"] = {"target_prompt": "name"}
    bank = PromptBank(plans)
    names = bank.draw("ct").targets
    assert torch.equal(names, bank.draw("mr", bank.names).targets)
    assert torch.equal(names[:, LENGTH:], told.targets[:, LENGTH:])
    assert not bool(names[:, :LENGTH].any())
    assert bank.embedding == PromptBank(make_plans()).embedding


def test_modality_dropout_in_every_step_is_the_name_alone() -> None:
    images, rng = [("ct", ["liver"])], np.random.default_rng(0)
    hidden = StoredTexts(make_bank()).draw(images, rng, 0.0, [(False, True)])
    plans = make_plans()
    plans["duplus"]["settings"] = {"target_prompt": "name"}
    assert torch.equal(hidden.targets[0], PromptBank(plans).draw("ct", ["liver"]).targets)


def test_an_adapted_encoder_needs_sentences() -> None:
    with pytest.raises(PlansError, match="text_adapter"):
        parse_settings({"text_adapter": {"enabled": True}, "target_prompt": "name"})
