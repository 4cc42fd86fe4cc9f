"""The unseen cases of the demonstration: every unseen body is scanned in each contrast.

In: how many bodies. Out: cases by name, and what is annotated in the training cases of each contrast.
"""

from dataclasses import dataclass

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom_sources import PHANTOM_SOURCES, PhantomSource


@dataclass(frozen=True)
class UnseenCase:
    """One unseen body in one contrast.

    Attributes:
        source: The contrast.
        number: Of the body; equal numbers are the same body in all contrasts.
    """

    source: PhantomSource
    number: int

    @property
    def name(self) -> str:
        """nnU-Net's case identifier; distinct across contrasts."""
        return self.source.name_case("test", self.number)


def list_cases(bodies: int) -> list[UnseenCase]:
    """List every unseen body in every contrast."""
    return [UnseenCase(source, number) for source in PHANTOM_SOURCES for number in range(bodies)]


def list_annotated(source: PhantomSource) -> list[str]:
    """List the structures that are annotated in training cases of a contrast, in the order of `LABELS`."""
    return [name for name in LABELS if name in source.labels.values()]


def list_unannotated(source: PhantomSource) -> list[str]:
    """List the structures that no training case of a contrast has annotated; other contrasts have."""
    return [name for name in LABELS if name not in source.labels.values()]


def name_apart(selection: str, source: PhantomSource) -> str:
    """Name a selection of targets that is predicted for each contrast apart."""
    return f"{selection} {source.name}"
