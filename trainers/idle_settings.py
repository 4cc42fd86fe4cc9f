"""Finds settings that a user changed and that change nothing in a training, for its log."""

from collections.abc import Collection, Iterator
from typing import Any

from duplus_nnunet.plans_section import find_differences
from duplus_nnunet.settings import Settings

# Settings of DuPLUSTrainer, or groups of them, that other trainings do not read.
_UNREAD_BY_ADAPTER = frozenset({"optimizer", "initial_learning_rate", "frozen_encoder_epochs", "frozen_decoder_epochs"})
_UNREAD_BY_PROGNOSIS = _UNREAD_BY_ADAPTER.union(
    {"epochs", "warmup_iterations", "paraphrase_probability", "negative_prompts", "loss", "transfer"}
)


def list_idle_of_adapter(settings: Settings) -> list[str]:
    """List what a user changed that has no effect in the training of an adapter, as lines for the log."""
    rate = settings.adaptation.learning_rate
    reason = f"an adapter is trained by AdamW with settings.adaptation.learning_rate, {rate:g}, beside frozen weights"
    unread = [
        f"warning: settings.{name} is {value}, which DuPLUSLoRATrainer does not read: {reason}."
        for name, value in _list_changed(settings, _UNREAD_BY_ADAPTER)
    ]
    return [*list_idle(settings), *unread]


def list_idle_of_prognosis(settings: Settings) -> list[str]:
    """List settings of the segmentation model's training, which has the same plans, that a prognosis does not read."""
    listed = ", ".join(f"{name} {value}" for name, value in _list_changed(settings, _UNREAD_BY_PROGNOSIS))
    return [f"note: settings that a prognosis does not read: {listed}."] if listed else []


def _list_changed(settings: Settings, among: frozenset[str]) -> list[tuple[str, str]]:
    """List names and values of settings, or of those in groups, that are not the defaults."""
    changes = find_differences(Settings().to_dict(), settings.to_dict())
    return [(name, repr(value)) for name, _, value in changes if name.partition(".")[0] in among]


def describe_unseen(axes: Collection[int], seen: Collection[int]) -> list[str]:
    """Warn of axes along which an adapter's images are mirrored and its base's never were, as lines for the log."""
    unseen = sorted(set(axes) - set(seen))
    text = (
        f"warning: images are mirrored along the axes {unseen}, as the base's never were; settings.mirror_left_right "
        "and settings.mirror_other_axes leave them out."
    )
    return [text] if unseen else []


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
