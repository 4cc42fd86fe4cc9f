"""Chooses the prompts of each image in a batch, and which targets count in which image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from duplus_nnunet.data.case_table import Case, CaseTable
from duplus_nnunet.networks.sums import expand_target
from duplus_nnunet.plans_form import PlannedContext
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.trainers.contrast import Remapping

Labels = list[torch.Tensor] | torch.Tensor


@dataclass(frozen=True)
class BatchPrompts:
    """Targets and contexts whose prompts the images of a batch are given.

    Attributes:
        sources: Source of each image.
        images: For each image its context and the K targets whose prompts it is given.
        names: The K targets as they are in the label maps before mirroring.
        rows: Their indices among all targets, int64 (K).
        annotated: Which target counts in which image, as annotated in it or as a negative prompt, boolean (B, K).
        flipped: Which images are to be mirrored from left to right; the prompts of left and right are exchanged.
        remapping: How the intensities of some images are to be remapped.
    """

    sources: tuple[str, ...]
    images: tuple[tuple[str, tuple[str, ...]], ...]
    names: tuple[str, ...]
    rows: torch.Tensor
    annotated: torch.Tensor
    flipped: tuple[bool, ...]
    remapping: Remapping | None = None


class BatchPrompter:
    """Chooses, for each image, the prompts of its context and of the targets that are annotated in the batch.

    The K targets of a batch are those annotated in any of its images, and negative prompts: some targets that an image
    of that context cannot show, which count as absent in it.

    Args:
        bank: The model's prompts.
        table: All cases.
        everything: Always choose all targets, as is required if several ranks sum over each other's images.
        multiple: K is filled up to a multiple of this with targets that do not count, so that a compiled network is
            called with few different K.
        negatives: Largest number of negative prompts in a batch.
    """

    def __init__(
        self, bank: PromptBank, table: CaseTable, everything: bool = False, multiple: int = 1, negatives: int = 0
    ) -> None:
        self.bank, self.table, self.everything, self.multiple = bank, table, everything, multiple
        self.negatives = negatives
        self._rows = {name: row for row, name in enumerate(bank.names)}
        self._apart = {key: self._list_apart(context) for key, context in bank.contexts.items()}

    def choose(
        self,
        keys: Sequence[str],
        rng: np.random.Generator | None = None,
        negatives_rng: np.random.Generator | None = None,
    ) -> BatchPrompts:
        """Choose the prompts of a batch.

        Args:
            keys: Case identifier of each image.
            rng: Draws which images are mirrored from left to right, half of those that can be; None: no image is.
            negatives_rng: Draws the negative prompts; None: there are none.
        """
        cases = [self.table.find(key) for key in keys]
        contexts = [self.table.sources[case.source].context for case in cases]
        drawn = self._draw_negatives(cases, contexts, negatives_rng)
        annotated = [frozenset(case.annotated) for case in cases]
        names = self._choose_targets(drawn.union(*annotated))
        counted = [known | (drawn & self._apart[key]) for known, key in zip(annotated, contexts, strict=True)]
        flipped = tuple(
            rng is not None and self._can_flip(context, known) and bool(rng.random() < 0.5)
            for context, known in zip(contexts, annotated, strict=True)
        )
        images = tuple(
            (context, tuple(self._swap(names)) if flip else names)
            for context, flip in zip(contexts, flipped, strict=True)
        )
        return BatchPrompts(
            sources=tuple(case.source for case in cases),
            images=images,
            names=names,
            rows=torch.tensor([self._rows[name] for name in names]),
            annotated=torch.from_numpy(np.array([[name in known for name in names] for known in counted])),
            flipped=flipped,
        )

    def describe_negatives(self) -> str:
        """Describe the negative prompts of each context, or why there are none; empty if none are wanted."""
        if not self.negatives:
            return ""
        listed = "; ".join(
            f"{key}: {', '.join(name for name in self.bank.names if name in apart)}"
            for key, apart in self._apart.items()
            if apart
        )
        if not listed:
            return (
                f"warning: settings.negative_prompts is {self.negatives}, but no context of the plans lists "
                "implausible targets that have a prompt in it, so there are none. Give contexts and targets `regions` "
                "in prompts.yaml and plan the dataset again, or set it to 0."
            )
        return f"negative prompts, up to {self.negatives} in a batch: {listed}"

    def _list_apart(self, context: PlannedContext) -> frozenset[str]:
        """List the targets that images of a context cannot show and that have prompts in it, in mirror images too."""
        apart = {name for name in context.implausible if name in context.target_prompts}
        return frozenset(name for name in apart if set(self._swap([name])) <= apart)

    def _draw_negatives(
        self, cases: Sequence[Case], contexts: Sequence[str], rng: np.random.Generator | None
    ) -> set[str]:
        """Draw targets that some image cannot show; those of mirror images are the partners of the drawn ones."""
        if rng is None or not self.negatives:
            return set()
        images = zip(cases, contexts, strict=True)
        apart = {name for case, context in images for name in self._apart[context] - set(case.annotated)}
        candidates = [name for name in self.bank.names if name in apart]
        count = min(self.negatives, len(candidates))
        return {candidates[index] for index in rng.choice(len(candidates), count, replace=False)} if count else set()

    def _choose_targets(self, chosen: set[str]) -> tuple[str, ...]:
        if self.everything:
            return tuple(self.bank.names)
        lacking = -len(chosen) % self.multiple if chosen else 1
        rest = (name for name in self.bank.names if name not in chosen)
        return tuple(sorted(chosen.union(islice(rest, lacking)), key=self._rows.__getitem__))

    def _can_flip(self, context: str, annotated: Iterable[str]) -> bool:
        """Whether all that an image's annotated targets are in a mirror image has prompts in its context."""
        swapped = self.bank.swap_sides(sorted(annotated))
        return swapped is not None and set(swapped) <= self.bank.contexts[context].target_prompts.keys()

    def _swap(self, names: Sequence[str]) -> list[str]:
        """Exchange left and right targets; one without a partner is not annotated in a flipped image and stays."""
        return [self.bank.find_opposite(name) or name for name in names]


def flip_images(data: torch.Tensor, labels: Labels, flipped: Sequence[bool], axis: int) -> tuple[torch.Tensor, Labels]:
    """Mirror some images of a batch, and their label maps, along an array axis (0, 1 or 2).

    Args:
        data: Shape (B, C, D, H, W).
        labels: Shape (B, 1, D, H, W), or a list of such label maps, one for each resolution.
        flipped: Which of the B images to mirror.
        axis: Array axis, without batch and channels.
    """
    chosen = torch.tensor(flipped, device=data.device)
    if not any(flipped):
        return data, labels

    def flip(maps: torch.Tensor) -> torch.Tensor:
        return torch.where(chosen.view(-1, 1, 1, 1, 1), maps.flip(axis + 2), maps)

    return flip(data), [flip(level) for level in labels] if isinstance(labels, list) else flip(labels)


def list_pairs(table: CaseTable, identifiers: Sequence[str]) -> list[tuple[str, str]]:
    """List the pairs of a source and a target that is annotated in some of the cases, in the table's order."""
    annotated = {(table.cases[key].source, name) for key in identifiers for name in table.cases[key].annotated}
    pairs = [(name, target) for name, source in table.sources.items() for target in source.targets]
    return [pair for pair in pairs if pair in annotated]


def count_voxels(logits: torch.Tensor, labels: torch.Tensor, table: torch.Tensor, ignore: int | None) -> np.ndarray:
    """Count true positives, false positives and false negatives of each image and target.

    Args:
        logits: Shape (B, K, D, H, W).
        labels: Label maps, (B, D, H, W).
        table: Which label values are which target, as expected by `expand_target`, one row for each of the K targets.
        ignore: Label value of voxels that do not count; None: all count.

    Returns:
        Shape (3, B, K).
    """
    valid = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
    rows = []
    for k in range(logits.shape[1]):
        predicted, truth = (logits[:, k] > 0) & valid, expand_target(labels, table, k)
        hits = (predicted & truth).flatten(1).sum(1)
        false = predicted.flatten(1).sum(1) - hits
        rows.append(torch.stack([hits, false, (truth & valid).flatten(1).sum(1) - hits]))
    counts: np.ndarray = torch.stack(rows, dim=2).double().cpu().numpy()
    return counts


def count_pairs(sums: np.ndarray, chosen: BatchPrompts, pairs: Mapping[tuple[str, str], int]) -> np.ndarray:
    """Sum counts over images by source and target, without the targets that are not annotated.

    Args:
        sums: Counts of each image and target, (3, B, K).
        chosen: Prompts of the batch.
        pairs: Index of each of P pairs of a source and a target.

    Returns:
        Shape (3, P).
    """
    counts = np.zeros((3, len(pairs)))
    for image, source in enumerate(chosen.sources):
        for column, name in enumerate(chosen.names):
            pair = pairs.get((source, name))
            if pair is not None and chosen.annotated[image, column]:
                counts[:, pair] += sums[:, image, column]
    return counts
