"""Measures how similar the embedded prompts of a dataset's targets are; a network cannot separate near-equal ones.

A target is steered by its sentence and its bare name; the similarity of two targets is the mean of the two cosines.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplus_nnunet.prompt_registry.embedding import embed
from duplus_nnunet.prompt_registry.entries import Entry
from duplus_nnunet.prompt_registry.identity import EncoderIdentity
from duplus_nnunet.prompt_registry.sentences import target_sentences
from duplus_nnunet.prompt_registry.store import Vectors
from duplus_nnunet.text_table import format_table

# With the default encoder, left and right kidney (0.92) are learned apart; pairs of long names lie above 0.97.
TOO_SIMILAR = 0.97
# Letters of the title in an inch of the picture.
_LETTERS_AN_INCH = 9


@dataclass(frozen=True)
class Similarity:
    """Similarities between the prompts of targets.

    Attributes:
        names: K target names.
        cosines: (K, K), each from -1 to 1; 1 means equal embeddings.
        encoder: Identity of the text encoder.
    """

    names: tuple[str, ...]
    cosines: Vectors
    encoder: EncoderIdentity

    def pairs(self) -> list[tuple[float, str, str]]:
        """List all pairs with their cosines, the most similar first."""
        rows, columns = np.triu_indices(len(self.names), k=1)
        pairs = [
            (float(self.cosines[row, column]), self.names[row], self.names[column])
            for row, column in zip(rows, columns, strict=True)
        ]
        return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))

    def too_similar(self, threshold: float = TOO_SIMILAR) -> list[tuple[float, str, str]]:
        """List the pairs with a cosine of at least a threshold."""
        return [pair for pair in self.pairs() if pair[0] >= threshold]


def compare_targets(entry: Entry, encoder: str | Path | None = None, pooling: str | None = None) -> Similarity:
    """Compare the prompts of an entry's targets in its default context."""
    context = entry.contexts[entry.default_context]
    names = tuple(target.name for target in entry.targets)
    sentences = [target_sentences(context, target)[0] for target in entry.targets]
    vectors, identity = embed([*names, *sentences], encoder, pooling)
    bare, whole = vectors[: len(names)], vectors[len(names) :]
    return Similarity(names, np.asarray((bare @ bare.T + whole @ whole.T) / 2, dtype=np.float32), identity)


def describe_similarity(similarity: Similarity) -> Iterator[str]:
    """Yield the lines of a table whose columns are numbered like its rows."""
    numbers = [str(index + 1) for index in range(len(similarity.names))]
    rows = [
        (number, name, *(f"{cosine:.2f}" for cosine in cosines))
        for number, name, cosines in zip(numbers, similarity.names, similarity.cosines, strict=True)
    ]
    return format_table([("", "", *numbers), *rows], align="><".ljust(len(numbers) + 2, ">"))


def draw_similarity(similarity: Similarity, path: Path) -> None:
    """Draw the matrix as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(similarity.names)
    size = min(4 + 0.25 * count, 40)
    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(similarity.cosines, vmin=0, vmax=1, cmap="viridis")
    _label(axes, similarity.names)
    figure.colorbar(image, ax=axes, shrink=0.7, label="cosine")
    # Over the whole figure, and in lines that fit a small one: the axes are narrower than the name of an encoder.
    columns = max(20, int(size * _LETTERS_AN_INCH))
    figure.suptitle(textwrap.fill(f"Similarity of target prompts ({similarity.encoder.name})", columns), fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _label(axes: object, names: Sequence[str]) -> None:
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90)  # type: ignore[attr-defined]
    axes.set_yticks(ticks, names)  # type: ignore[attr-defined]
