"""Finds settings that a user changed and that change nothing in a training, for its log."""

from collections.abc import Iterator
from typing import Any

from duplus_nnunet.settings import Settings

# Settings of DuPLUSTrainer that an adapter's training does not read.
_UNREAD = ("optimizer", "initial_learning_rate", "frozen_encoder_epochs", "frozen_decoder_epochs")


def list_unread(settings: Settings) -> list[str]:
    """List what a user changed that the training of an adapter does not read, as lines for the log."""
    changed = [name for name in _UNREAD if getattr(settings, name) != getattr(Settings(), name)]
    rate = settings.adaptation.learning_rate
    return [
        f"warning: settings.{name} is {getattr(settings, name)!r}, which DuPLUSLoRATrainer does not read: it trains an "
        f"adapter by AdamW with settings.adaptation.learning_rate, {rate:g}, beside frozen weights."
        for name in changed
    ]


def log_idle(trainer: Any) -> None:
    """Write into the log of a training what a user changed that has no effect in it."""
    for line in list_idle(trainer.settings):
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
