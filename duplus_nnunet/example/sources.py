"""The three contrasts of the example, in all of which the same six structures are annotated."""

from dataclasses import replace
from pathlib import Path

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom import Phantom, make_phantom
from duplus_nnunet.data.phantom_sources import PHANTOM_SOURCES, PhantomSource, write_phantom_sources

TARGETS = ("liver", "spleen", "left kidney", "right kidney", "stomach", "aorta")
EXAMPLE_SOURCES = tuple(replace(source, labels={name: name for name in TARGETS}) for source in PHANTOM_SOURCES)

# Part of the seed of the bodies that the example shows and is scored on; training bodies have the datasets' numbers.
_UNSEEN_BODIES = 2


def write_training_data(raw: Path, cases: int, seed: int) -> None:
    """Write one raw dataset a contrast, each with other bodies.

    Args:
        raw: nnU-Net's folder of raw datasets.
        cases: Number of training cases in each contrast.
        seed: Seed of the bodies.

    Raises:
        DataError: One of the datasets exists already.
    """
    write_phantom_sources(raw, cases, 0, seed, EXAMPLE_SOURCES)


def make_unseen_body(source: PhantomSource, number: int, seed: int) -> Phantom:
    """Scan a body that no training has seen; equal numbers mean the same body in all contrasts.

    The label map has the values of `LABELS`, restricted to `TARGETS`; they are the model's label values too.
    """
    phantom = make_phantom(seed, _UNSEEN_BODIES, number, source.scan)
    values = [LABELS[name] for name in TARGETS]
    kept = phantom.labels * (sum(phantom.labels == value for value in values) > 0)
    return replace(phantom, labels=kept.astype(phantom.labels.dtype))
