"""Lists the unseen cases of the demonstration, and the structures that are annotated in each contrast."""

from dataclasses import dataclass

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom_sources import PHANTOM_SOURCES, PhantomSource


@dataclass(frozen=True)
class UnseenCase:
    """One unseen body in one contrast.

    Attributes:
        source: The contrast.
        number: Number of the body; equal numbers mean the same body in all contrasts.
    """

    source: PhantomSource
    number: int

    @property
    def name(self) -> str:
        """nnU-Net's case identifier, unique across contrasts."""
        return self.source.name_case("test", self.number)


def list_cases(bodies: int) -> list[UnseenCase]:
    """List every unseen body in every contrast."""
    return [UnseenCase(source, number) for source in PHANTOM_SOURCES for number in range(bodies)]


def list_annotated(source: PhantomSource) -> list[str]:
    """List the structures that are annotated in the training cases of a contrast, in the order of `LABELS`."""
    return [name for name in LABELS if name in source.labels.values()]


def list_unannotated(source: PhantomSource) -> list[str]:
    """List the structures that are annotated only in the training cases of other contrasts."""
    return [name for name in LABELS if name not in source.labels.values()]


def name_separately(selection: str, source: PhantomSource) -> str:
    """Name a selection of targets that is predicted separately for each contrast."""
    return f"{selection} {source.name}"
