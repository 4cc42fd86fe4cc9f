"""Varies what the images of a training batch are told, so that targets are found where they were never annotated."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from duplus_nnunet.plans_form import PlannedContext
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.regions import can_meet, find_levels
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
        chosen = _imitate(chosen, remapping, bank, rng)
    return replace(chosen, remapping=remapping), hidden if any(map(any, hidden)) else ()


def _draw(probability: float, rng: np.random.Generator) -> bool:
    return bool(probability and rng.random() < probability)


def _imitate(chosen: BatchPrompts, remapping: Remapping, bank: PromptBank, rng: np.random.Generator) -> BatchPrompts:
    """Give each remapped image the prompts of a context that it could be of, drawn from all such contexts."""
    images = []
    for (context, names), counted, remapped in zip(chosen.images, chosen.annotated, remapping.chosen, strict=True):
        if remapped:
            known = [name for name, counts in zip(names, counted.tolist(), strict=True) if counts]
            possible = list_possible(bank.contexts, context, known)
            images.append((possible[int(rng.integers(len(possible)))], names))
        else:
            images.append((context, names))
    return replace(chosen, images=tuple(images))


def list_possible(contexts: Mapping[str, PlannedContext], own: str, counted: Collection[str]) -> list[str]:
    """List the contexts that an image could be of, but for its intensities: its own is always one of them.

    Others have a prompt for each target that counts in the image, can show what it shows and cannot show what it
    cannot, and are of a part of the body that is the same, adjoins, or is not known.

    Args:
        contexts: All contexts by key.
        own: Key of the image's context.
        counted: Names of the targets that count in it: annotated ones, and negative prompts.
    """
    here = contexts[own]
    apart = {name for name in counted if name in here.implausible}
    return [
        key
        for key, context in contexts.items()
        if key == own
        or (
            all(name in context.target_prompts and (name in context.implausible) == (name in apart) for name in counted)
            and _may_adjoin(here.region, context.region)
        )
    ]


def describe_imitation(bank: PromptBank) -> list[str]:
    """Say for the log which contexts the remapped images of each context imitate, and where none; empty if none are."""
    settings = bank.settings.transfer
    if not settings.contrast_augmentation or settings.remapped_prompts != "imitated":
        return []
    others = {
        key: [other for other in list_possible(bank.contexts, key, context.targets) if other != key]
        for key, context in bank.contexts.items()
    }
    lines = [f"remapped images of {key} imitate {', '.join(listed)}" for key, listed in others.items() if listed]
    alone = [key for key, listed in others.items() if not listed]
    if alone:
        lines.append(
            f"warning: remapped images of {', '.join(alone)} imitate no other context: none is of the same or an "
            "adjoining part of the body and has prompts for all targets that are annotated there."
        )
    return lines


@cache
def _may_adjoin(region: str, other: str) -> bool:
    if region == other:
        return True
    here, there = find_levels(region), find_levels(other)
    return here is None or there is None or can_meet(here, there)
