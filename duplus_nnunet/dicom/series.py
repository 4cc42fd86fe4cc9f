"""A DICOM series as a volume: its slices in the order of their positions, and what is wrong with it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Hexadecimal digits of the hash that stands for a series: one in 4e9 pairs of series has the same.
_HASH_DIGITS = 8


def hash_uid(uid: str) -> str:
    """Return what stands for a series in names and records: the beginning of the SHA-256 of its UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:_HASH_DIGITS]


@dataclass(frozen=True)
class Slice:
    """One plane of a series, as its header describes it.

    Attributes:
        file: Its file.
        instance: SOP instance UID of the file.
        frame: Index in a multi-frame file; 0 in others.
        shape: Rows and columns.
        spacing: Distance between rows and between columns, in mm.
        directions: Direction of a row, then of a column, six cosines (LPS).
        position: Centre of the first voxel, in mm (LPS).
        number: Instance number, or number of the frame, for messages.
        slope: Rescale slope; None if the header has none.
        intercept: Rescale intercept; None if the header has none.
        marks: Values that tell apart volumes at one place, such as the temporal position, by keyword.
        acquired: When its acquisition started.
    """

    file: Path
    instance: str
    frame: int
    shape: tuple[int, int]
    spacing: tuple[float, float]
    directions: tuple[float, ...]
    position: tuple[float, ...]
    number: int
    slope: float | None = None
    intercept: float | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    acquired: datetime | None = None

    @property
    def normal(self) -> Vector:
        """Unit vector perpendicular to the slice."""
        normal: Vector = np.cross(self.directions[:3], self.directions[3:])
        return normal

    @property
    def height(self) -> float:
        """Position along the normal, in mm."""
        return float(np.dot(self.position, self.normal))


@dataclass(frozen=True)
class Description:
    """What the headers of a series say about all of it; texts may name the patient.

    Attributes:
        uid: Series instance UID.
        study: Study instance UID.
        patient: Patient ID.
        modality: DICOM's code, such as CT, MR or PT.
        text: Series description.
        body_part: Body part examined.
        words: Further texts on how the images were made, such as the protocol and the sequence.
        image_type: Values of the image type.
        sop_class: SOP class UID.
    """

    uid: str
    study: str = ""
    patient: str = ""
    modality: str = ""
    text: str = ""
    body_part: str = ""
    words: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    sop_class: str = ""


@dataclass(frozen=True)
class Series:
    """A series, or one volume of a series that holds several.

    Attributes:
        about: What its headers say.
        slices: In the order of their positions along the normal.
        part: Number of the volume, from 1, in a series of several; 0 in others.
        step: From one slice to the next, in mm (LPS); zeros if there is one slice only.
        shear: Sideways shift of the slices by mm along the normal, in mm (LPS): the gantry tilt; zeros for none.
        refusals: Why it cannot be read, a sentence each; empty if it can.
        doubts: Why it is taken only where nothing else is, or by choice; a sentence each.
        notes: What is unusual, or is corrected in reading; a sentence each. None of the sentences names the patient.
        started: When the first acquisition of the series started, of all of its volumes.
    """

    about: Description
    slices: tuple[Slice, ...]
    part: int = 0
    step: tuple[float, ...] = (0.0, 0.0, 0.0)
    shear: tuple[float, ...] = (0.0, 0.0, 0.0)
    refusals: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    started: datetime | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, in the order of the slices along the normal."""
        return tuple(dict.fromkeys(one.file for one in self.slices))

    @property
    def uid(self) -> str:
        """Series instance UID."""
        return self.about.uid

    @property
    def modality(self) -> str:
        """DICOM's code, such as CT, MR or PT."""
        return self.about.modality

    @property
    def hash(self) -> str:
        """What stands for the UID in names and records: the beginning of its SHA-256, and the number of the part."""
        short = hash_uid(self.uid)
        return f"{short}_{self.part}" if self.part else short

    @property
    def name(self) -> str:
        """Name of the case that it becomes, which holds nothing of the patient."""
        return f"series_{self.hash}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        return len(self.slices), *self.slices[0].shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of slices along the normal, of rows and of columns, in mm."""
        return abs(float(np.dot(self.step, self.slices[0].normal))), *self.slices[0].spacing

    @property
    def tilt(self) -> float:
        """Angle between the stack of slices and their normal, in degrees; 0 unless the gantry was tilted."""
        return float(np.degrees(np.arctan(np.linalg.norm(self.shear))))

    @property
    def is_usable(self) -> bool:
        """Whether it can be read."""
        return not self.refusals
