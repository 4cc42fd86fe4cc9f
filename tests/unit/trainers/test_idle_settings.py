"""Settings that a user changed and that change nothing."""

from typing import Any

import pytest

from duplus_nnunet.settings import Settings, parse_settings
from duplus_nnunet.trainers.adaptation import DuPLUSLoRATrainer
from duplus_nnunet.trainers.idle_settings import (
    describe_unseen,
    list_idle,
    list_idle_of_adapter,
    list_idle_of_prognosis,
)
from duplus_nnunet.trainers.segmentation import DuPLUSTrainer
from duplus_nnunet.trainers.survival import DuPLUSSurvivalTrainer


def names(lines: list[str]) -> list[str]:
    return [line.split()[1].removeprefix("settings.") for line in lines]


def test_settings_that_an_adapter_does_not_read_are_named() -> None:
    assert list_idle_of_adapter(Settings()) == []
    changed = Settings(optimizer="sgd", initial_learning_rate=0.01, frozen_decoder_epochs=2, warmup_iterations=3)
    assert names(list_idle_of_adapter(changed)) == ["optimizer", "initial_learning_rate", "frozen_decoder_epochs"]


def test_settings_that_a_prognosis_does_not_read_are_named() -> None:
    assert list_idle_of_prognosis(Settings()) == []
    changed = {"seed": 3, "epochs": 7, "warmup_iterations": 3, "loss": {"reduction": "sum"}, "survival": {"bins": 5}}
    (line,) = list_idle_of_prognosis(parse_settings(changed))
    assert line.endswith(": epochs 7, warmup_iterations 3, loss.reduction 'sum'.")


def test_each_trainer_names_what_it_does_not_read() -> None:
    assert DuPLUSTrainer.find_idle is list_idle
    assert DuPLUSLoRATrainer.find_idle is list_idle_of_adapter
    assert DuPLUSSurvivalTrainer.find_idle is list_idle_of_prognosis


def test_axes_along_which_the_base_was_not_mirrored_are_named() -> None:
    assert describe_unseen((0, 2), (0, 1, 2)) == describe_unseen((), ()) == []
    (line,) = describe_unseen((0, 1, 2), [2])
    assert "[0, 1]" in line


REMAPPED = {"contrast_augmentation": 0.5}


@pytest.mark.parametrize(
    ("content", "idle"),
    [
        ({}, []),
        ({"transfer": {"region_contrast": 1.0}}, ["region_contrast"]),
        ({"transfer": {"remapped_prompts": "none"}}, ["remapped_prompts"]),
        ({"transfer": {**REMAPPED, "region_contrast": 1.0, "remapped_prompts": "none"}}, []),
        ({"target_prompt": "name", "transfer": {"modality_dropout": 0.5}}, ["modality_dropout"]),
        ({"target_prompt": "text", "transfer": {"modality_dropout": 0.5, "context_dropout": 0.5}}, []),
        ({"context_prompt": "none", "transfer": {"context_dropout": 0.5}}, ["context_dropout"]),
        ({"network": {"film": False}, "transfer": {"context_dropout": 0.5}}, ["context_dropout"]),
    ],
)
def test_settings_without_effect_are_named(content: dict[str, Any], idle: list[str]) -> None:
    assert names(list_idle(parse_settings(content))) == [f"transfer.{name}" for name in idle]
