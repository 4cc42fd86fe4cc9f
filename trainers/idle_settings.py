"""Finds settings that a user changed and that change nothing in a training, for its log."""

from collections.abc import Iterator
from typing import Any

from duplus_nnunet.plans_section import find_differences
from duplus_nnunet.settings import Settings

# Settings of DuPLUSTrainer, or groups of them, that other trainings do not read.
_GROUPS = ("optimizer", "initial_learning_rate", "frozen_encoder_epochs", "frozen_decoder_epochs")
_UNREAD_BY_PROGNOSIS = frozenset(
    {*_GROUPS, "epochs", "warmup_iterations", "paraphrase_probability", "negative_prompts", "loss", "transfer"}
)


def list_idle_of_adapter(settings: Settings) -> list[str]:
    """List what a user changed that has no effect in the training of an adapter, as lines for the log."""
    rate = settings.adaptation.learning_rate
    reason = f"an adapter is trained by AdamW with settings.adaptation.learning_rate, {rate:g}, beside frozen weights"
    return [*list_idle(settings), *_list_unread(settings, frozenset(_GROUPS), "DuPLUSLoRATrainer", reason)]


def list_idle_of_prognosis(settings: Settings) -> list[str]:
    """List what a user changed that has no effect in the training of a prognosis, as lines for the log."""
    reason = "a prognosis is trained on outcomes, with settings.survival"
    return list(_list_unread(settings, _UNREAD_BY_PROGNOSIS, "DuPLUSSurvivalTrainer", reason))


def _list_unread(settings: Settings, unread: frozenset[str], trainer: str, reason: str) -> Iterator[str]:
    for name, _, value in find_differences(Settings().to_dict(), settings.to_dict()):
        if name.partition(".")[0] in unread:
            yield f"warning: settings.{name} is {value!r}, which {trainer} does not read: {reason}."


def log_idle(trainer: Any) -> None:
    """Write into the log of a training what a user changed that has no effect in it."""
    for line in trainer.find_idle(trainer.settings):
        trainer.print_to_log_file(line)


def list_idle(settings: Settings) -> list[str]:
    """List what a user changed that has no effect beside the other settings, as lines for the log.

    Example:
        >>> list_idle(Settings())
        []
    """
    return [f"warning: settings.transfer.{name} has no effect: {reason}." for name, reason in _find_idle(settings)]


def _find_idle(settings: Settings) -> Iterator[tuple[str, str]]:
    transfer = settings.transfer
    if not transfer.contrast_augmentation:
        no_image = "no image is remapped, as settings.transfer.contrast_augmentation is 0"
        if transfer.region_contrast:
            yield "region_contrast", no_image
        if transfer.remapped_prompts == "none":
            yield "remapped_prompts", no_image
    if transfer.modality_dropout and settings.target_prompt != "text":
        yield "modality_dropout", f"no target prompt states the modality (target_prompt {settings.target_prompt!r})"
    if transfer.context_dropout and settings.context_prompt == "none":
        yield "context_dropout", "no image has a context prompt (context_prompt 'none')"
    elif transfer.context_dropout and not settings.network.film:
        yield "context_dropout", "without FiLM (network.film false) no context prompt acts"
