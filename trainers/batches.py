"""What a batch is asked for: in come its cases, out come prompts an image each and which targets count where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from duplus_nnunet.data.case_table import Case, CaseTable
from duplus_nnunet.prompt_bank import PromptBank

Labels = list[torch.Tensor] | torch.Tensor


@dataclass(frozen=True)
class BatchPrompts:
    """What the network is asked about a batch.

    Attributes:
        sources: Source of each image.
        images: For each image its context and the names of the K targets as its prompts are to say them.
        names: The K targets as the label maps have them.
        rows: Their numbers among all targets, int64 (K).
        annotated: Which target counts in which image, boolean (B, K).
        flipped: Which images are to be mirrored from left to right; their prompts are exchanged accordingly.
    """

    sources: tuple[str, ...]
    images: tuple[tuple[str, tuple[str, ...]], ...]
    names: tuple[str, ...]
    rows: torch.Tensor
    annotated: torch.Tensor
    flipped: tuple[bool, ...]


class BatchPrompter:
    """Asks each image for the targets that are annotated in it, in its own context.

    The K targets of a batch are those annotated in any of its images.

    Args:
        bank: The model's prompts.
        table: All cases.
        everything: Always ask for all targets, as ranks that sum over each other's images must.
        multiple: Fill K up to a multiple of this with targets that do not count, so that a compiled network meets few
            different numbers.
    """

    def __init__(self, bank: PromptBank, table: CaseTable, everything: bool = False, multiple: int = 1) -> None:
        self.bank, self.table, self.everything, self.multiple = bank, table, everything, multiple
        self._numbers = {name: number for number, name in enumerate(bank.names)}

    def ask(self, keys: Sequence[str], rng: np.random.Generator | None = None) -> BatchPrompts:
        """Decide what to ask about a batch.

        Args:
            keys: Case identifier of each image.
            rng: Draws which images are mirrored from left to right, half of those that can be; None: none are.
        """
        cases = [self.table.find(key) for key in keys]
        names = self._choose(cases)
        flipped = tuple(rng is not None and self._can_flip(case) and bool(rng.random() < 0.5) for case in cases)
        contexts = [self.table.sources[case.source].context for case in cases]
        images = tuple(
            (context, tuple(self._swap(names)) if flip else names)
            for context, flip in zip(contexts, flipped, strict=True)
        )
        return BatchPrompts(
            sources=tuple(case.source for case in cases),
            images=images,
            names=names,
            rows=torch.tensor([self._numbers[name] for name in names]),
            annotated=torch.tensor([[name in case.annotated for name in names] for case in cases]),
            flipped=flipped,
        )

    def _choose(self, cases: Sequence[Case]) -> tuple[str, ...]:
        if self.everything:
            return tuple(self.bank.names)
        wanted = {name for case in cases for name in case.annotated}
        rest = [name for name in self.bank.names if name not in wanted]
        short = -len(wanted) % self.multiple if wanted else 1
        wanted.update(rest[:short])
        return tuple(name for name in self.bank.names if name in wanted)

    def _can_flip(self, case: Case) -> bool:
        return self.bank.swap_sides(case.annotated) is not None

    def _swap(self, names: Sequence[str]) -> list[str]:
        """Exchange left and right; a target without a partner counts in no flipped image and keeps its name."""
        swapped = (self.bank.swap_sides([name]) for name in names)
        return [found[0] if found else name for found, name in zip(swapped, names, strict=True)]


def flip_images(data: torch.Tensor, labels: Labels, flipped: Sequence[bool], axis: int) -> tuple[torch.Tensor, Labels]:
    """Mirror some images of a batch, and their label maps, along an array axis (0, 1 or 2).

    Args:
        data: Shape (B, C, D, H, W).
        labels: Shape (B, 1, D, H, W), or a list of such, one a resolution.
        flipped: Which of the B images.
        axis: Array axis.
    """
    chosen = torch.tensor(flipped, device=data.device)
    if not any(flipped):
        return data, labels

    def flip(maps: torch.Tensor) -> torch.Tensor:
        return torch.where(chosen.view(-1, 1, 1, 1, 1), maps.flip(axis + 2), maps)

    return flip(data), [flip(level) for level in labels] if isinstance(labels, list) else flip(labels)


def list_pairs(table: CaseTable, identifiers: Sequence[str]) -> list[tuple[str, str]]:
    """List the pairs of a source and a target that is annotated in some of the cases, in the table's order."""
    there = {(table.cases[key].source, name) for key in identifiers for name in table.cases[key].annotated}
    known = [(source, name) for source, found in table.sources.items() for name in found.targets]
    return [pair for pair in known if pair in there]


def count_pairs(sums: np.ndarray, question: BatchPrompts, pairs: Mapping[tuple[str, str], int]) -> np.ndarray:
    """Add counts, (3, B, K), up by source and target, (3, P); what is not annotated is left out."""
    counts = np.zeros((3, len(pairs)))
    for image, source in enumerate(question.sources):
        for column, name in enumerate(question.names):
            place = pairs.get((source, name))
            if place is not None and question.annotated[image, column]:
                counts[:, place] += sums[:, image, column]
    return counts
