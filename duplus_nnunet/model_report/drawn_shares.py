"""Reads the shares of sources and targets in the training images, which a training with TensorBoard logged."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from duplus_nnunet.trainers.monitoring import FOLDER

_PREFIX = "sampling/"


def read_drawn_shares(fold: Path, sources: Sequence[str]) -> Mapping[str, Sequence[tuple[int, float]]]:
    """Read the share of training images that came from each source in each epoch.

    Args:
        fold: Folder of the fold.
        sources: Names of the sources.

    Returns:
        Pairs of an epoch from 1 and a share, 0 to 1, by source; empty if the training did not log into TensorBoard's
        files, or the package tensorboard is not installed.
    """
    folder = fold / FOLDER
    if not folder.is_dir() or find_spec("tensorboard") is None:
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    # A size of 0 keeps all values, where some thousands would be drawn from them otherwise.
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    known = set(events.Tags()[SCALARS])
    return {
        name: [(event.step + 1, float(event.value)) for event in events.Scalars(_PREFIX + name)]
        for name in sources
        if _PREFIX + name in known
    }
