"""Varies what the images of a training batch are told, so that targets are found where they were never annotated."""

from dataclasses import replace

import numpy as np

from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.trainers.batches import BatchPrompts
from duplus_nnunet.trainers.contrast import Remapping, draw_remapping
from duplus_nnunet.trainers.text_adaptation import Hidden


def vary_prompts(
    chosen: BatchPrompts, bank: PromptBank, channels: int, rng: np.random.Generator
) -> tuple[BatchPrompts, Hidden]:
    """Draw which images of a batch are remapped, and which prompts are hidden, as settings.transfer requires.

    Args:
        chosen: Prompts of the batch.
        bank: The model's prompts and settings.
        channels: Number of channels of an image.
        rng: Draws everything; it is left alone if all of settings.transfer is 0.

    Returns:
        The prompts, with the context that a remapped image imitates in place of its own, and what each image is not
        told, as StoredTexts.draw takes it; empty if every image is told everything.
    """
    settings = bank.settings.transfer
    count = len(chosen.images)
    remapping = draw_remapping((count, channels), settings.contrast_augmentation, settings.region_contrast, rng)
    hidden = [(_draw(settings.context_dropout, rng), _draw(settings.modality_dropout, rng)) for _ in range(count)]
    if remapping is not None and settings.remapped_prompts == "none":
        hidden = [(True, True) if remapped else own for own, remapped in zip(hidden, remapping.chosen, strict=True)]
    elif remapping is not None:
        chosen = _imitate(chosen, remapping, list(bank.contexts), rng)
    return replace(chosen, remapping=remapping), hidden if any(map(any, hidden)) else ()


def _draw(probability: float, rng: np.random.Generator) -> bool:
    return bool(probability and rng.random() < probability)


def _imitate(chosen: BatchPrompts, remapping: Remapping, contexts: list[str], rng: np.random.Generator) -> BatchPrompts:
    """Give each remapped image the prompts of a context drawn from all."""
    images = tuple(
        (contexts[int(rng.integers(len(contexts)))] if remapped else context, names)
        for (context, names), remapped in zip(chosen.images, remapping.chosen, strict=True)
    )
    return replace(chosen, images=images)
