"""A case while it is converted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from duplus_nnunet.conversion.volumes import Volume


@dataclass(frozen=True)
class Loaded:
    """A case while it is converted.

    Attributes:
        name: The case.
        fields: The fields of its files' names.
        images: One image a channel.
        label: The label map, with the values of the dataset that is written; None if nothing was annotated.
        values: Value of each label in it, by name.
        is_frame: Whether an image is a frame of a file of four dimensions.
        notes: What was changed or is doubtful, a sentence each.
        root: The download, in which a step finds its tables.
    """

    name: str
    fields: Mapping[str, str]
    images: tuple[Volume, ...]
    label: Volume | None
    values: Mapping[str, int] = field(default_factory=dict)
    is_frame: bool = False
    notes: tuple[str, ...] = ()
    root: Path = Path()

    def note(self, text: str) -> "Loaded":
        """Return the case with one more note."""
        return replace(self, notes=(*self.notes, text))
