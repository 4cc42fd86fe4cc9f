"""A case of a download: where its files are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from duplus_nnunet.conversion.recipe import Group


@dataclass(frozen=True)
class FoundCase:
    """One case of a download.

    Attributes:
        name: Its name in the dataset.
        patient: The patient.
        group: The recipe's description of its files.
        fields: The fields of their names.
        images: One file (or folder of a DICOM series) a channel.
        label: Its label map.
        masks: One mask a target.
        ground: Folder of its PNG masks.
        frame: Number of its frame in a 4D image, from 0.
    """

    name: str
    patient: str
    group: Group
    fields: Mapping[str, str]
    images: tuple[Path, ...]
    label: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    ground: Path | None = None
    frame: int | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether it has a label map, masks for one, or PNG masks."""
        return self.label is not None or bool(self.masks) or self.ground is not None
