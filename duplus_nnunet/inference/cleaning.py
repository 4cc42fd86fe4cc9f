"""Removes small components of predicted masks where that is asked for, before anything is written of a prediction."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import PromptError, describe_unknown
from duplus_nnunet.outputs.answer import CaseAnswer, Removal, TargetAnswer
from duplus_nnunet.prompt_bank import PromptBank

_MM3_IN_ML = 1000.0
# Voxels that share a face, an edge or a corner belong together, as in the table of statistics.
_ANY_NEIGHBOUR = np.ones((3, 3, 3), bool)
_EXAMPLE = "Give a volume in ml, such as 0.5, or one for a target, such as liver=5."


@dataclass(frozen=True)
class Cleaning:
    """What is removed from which target.

    Attributes:
        largest: Targets of which only the largest component is kept.
        least: Smallest volume of a component that is kept, in ml, by target.
        least_of_others: The same for targets that are not named.
    """

    largest: frozenset[str] = frozenset()
    least: Mapping[str, float] = field(default_factory=dict)
    least_of_others: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.largest or self.least or self.least_of_others)

    def find_least(self, target: str) -> float:
        """Return the smallest volume of a component of a target that is kept, in ml."""
        return self.least.get(target, self.least_of_others)


def read_cleaning(largest: Sequence[str], small: Sequence[str], bank: PromptBank, texts: Iterable[str]) -> Cleaning:
    """Read what is to be removed as it was typed.

    Args:
        largest: Names of targets.
        small: Volumes in ml, each for all targets or as `NAME=ML`.
        bank: The model's prompts.
        texts: The user's own texts that are predicted.

    Raises:
        PromptError: The model does not have a target, or a volume is not a number of 0 or more.
    """
    texts = tuple(texts)
    least: dict[str, float] = {}
    others = 0.0
    for word in small:
        name, equals, number = word.rpartition("=")
        volume = _read_volume(number, word)
        if equals:
            least[_find_target(name.strip(), bank, texts)] = volume
        else:
            others = volume
    return Cleaning(frozenset(_find_target(name, bank, texts) for name in largest), least, others)


def warn_of_unasked(cleaning: Cleaning, asked: Iterable[str]) -> None:
    """Warn of targets that are to be cleaned, and are not predicted."""
    for name in sorted({*cleaning.largest, *cleaning.least} - set(asked)):
        sys.stderr.write(f"warning: {name} is named to be cleaned, and is not among the targets of this prediction\n")


def clean(answer: CaseAnswer, cleaning: Cleaning) -> CaseAnswer:
    """Remove components of a prediction from its masks and its label map.

    A component is what hangs together by faces, edges or corners of voxels (26-connectivity). The largest one is kept
    first, of equal ones the first along (z, y, x); then components below the smallest volume are removed. Voxels that a
    target loses become background, or belong to the target below if targets overlap; logits and presence stay.

    Returns:
        The prediction, with what was removed.
    """
    if not cleaning:
        return answer
    voxel = math.prod(answer.geometry.spacing) / _MM3_IN_ML
    cleaned, removals = [], []
    for target in answer.targets:
        kept = _choose_components(target, cleaning, voxel)
        if kept is None:
            cleaned.append(target)
            continue
        mask, components = kept
        voxels = int(np.count_nonzero(target.mask) - np.count_nonzero(mask))
        removals.append(Removal(target.name, components, voxels, voxels * voxel))
        cleaned.append(replace(target, mask=mask))
    if not removals:
        return answer
    labels = _draw_labels(cleaned, answer.labels)
    return replace(answer, labels=labels, targets=tuple(cleaned), removed=tuple(removals))


def _choose_components(target: TargetAnswer, cleaning: Cleaning, voxel: float) -> tuple[NDArray[np.bool_], int] | None:
    """Return what is left of a mask and how many components are removed; None if nothing is."""
    from scipy.ndimage import label

    least, largest = cleaning.find_least(target.name), target.name in cleaning.largest
    if not (largest or least) or not target.mask.any():
        return None
    components, number = label(target.mask, _ANY_NEIGHBOUR)
    sizes = np.bincount(components.ravel(), minlength=number + 1)
    # A volume that is the least one in decimal notation is kept, whatever its binary fraction.
    keep = sizes * voxel >= least * (1 - 1e-9)
    if largest:
        keep &= np.arange(number + 1) == 1 + np.argmax(sizes[1:])
    keep[0] = False
    removed = number - int(np.count_nonzero(keep))
    return (keep[components], removed) if removed else None


def _draw_labels(targets: Iterable[TargetAnswer], labels: NDArray[Any]) -> NDArray[Any]:
    """Draw a label map from masks: where they overlap, later targets are drawn over earlier ones, as before."""
    drawn = np.zeros_like(labels)
    for target in targets:
        drawn[target.box][target.mask] = target.value
    return drawn


def _find_target(name: str, bank: PromptBank, texts: Sequence[str]) -> str:
    if name in texts:
        return name
    try:
        return next(iter(bank.find_targets([name])))
    except PromptError as error:
        known = [*bank.names, *texts]
        raise PromptError(f"{describe_unknown('target to clean', name, known)} The model does not have it.") from error


def _read_volume(text: str, word: str) -> float:
    try:
        volume = float(text)
    except ValueError as error:
        raise PromptError(f"--remove-small is {word!r}, which is not a volume. {_EXAMPLE}") from error
    if not 0 <= volume < math.inf:
        raise PromptError(f"--remove-small is {word!r}; expected a number of 0 or more. {_EXAMPLE}")
    return volume
