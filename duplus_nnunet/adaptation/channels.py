"""Compares the channels of a new dataset with those that a model was trained with, by number and by name."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from duplus_nnunet.errors import PlansError
from duplus_nnunet.prompt_registry.dataset_labels import channel_names

# What composed datasets call a channel that contexts name differently.
_UNNAMED = "image"


class HasDataset(Protocol):
    """A model with a dataset.json."""

    @property
    def dataset(self) -> Mapping[str, Any]:
        """Its content."""


def check_channels(base: HasDataset, dataset_json: Mapping[str, Any]) -> None:
    """Refuse images whose channels differ from those of the base in number, or in order.

    Raises:
        PlansError: They differ.
    """
    theirs, own = channel_names(base.dataset), channel_names(dataset_json)
    if len(theirs) != len(own):
        raise PlansError(
            f"The base takes images of {len(theirs)} channel(s); the new dataset has {len(own)}. Both must have the "
            "same number: `duplus compose` splits several channels into one context each."
        )
    require_order(theirs, own, "The new dataset")


def require_order(theirs: Sequence[str], own: Sequence[str], what: str) -> None:
    """Refuse channels that have the names of a model's at other numbers.

    Args:
        theirs: Names of the model's channels, by number.
        own: As many names of the new ones.
        what: What has the new ones, for the message.

    Raises:
        PlansError: A name has another number.
    """
    unequal = [number for number, pair in enumerate(zip(theirs, own, strict=True)) if not _is_same(*pair)]
    moved = [number for number in unequal if any(_is_same(theirs[other], own[number]) for other in unequal)]
    if moved:
        files = ", ".join(f"_{number:04} {name!r}" for number, name in enumerate(theirs))
        raise PlansError(
            f"{what} has the channels {_join(own)}; the model was trained with {_join(theirs)}, in this order, and its "
            f"weights would take one for another. Rename the image files in the model's order ({files}), write "
            "channel_names of dataset.json in the same order, and plan again. If only the names are wrong, correct "
            "channel_names."
        )


def describe_channels(theirs: Sequence[str], own: Sequence[str]) -> list[str]:
    """Describe, for the user to judge, the channels that have another name than the model's of the same number."""
    return [
        f"channel {number}: {ours!r} of the dataset goes where the model was trained with {name!r}"
        for number, (name, ours) in enumerate(zip(theirs, own, strict=False))
        if not _is_same(name, ours) and name.split(" ")[0] != _UNNAMED
    ]


def _is_same(name: str, other: str) -> bool:
    return name.casefold() == other.casefold()


def _join(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
