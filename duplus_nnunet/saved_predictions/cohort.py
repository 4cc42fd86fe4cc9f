"""Makes a table over the images of a folder of label maps, one image after the other."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.errors import DuplusError
from duplus_nnunet.progress import track
from duplus_nnunet.saved_predictions.cohort_flags import Flag, find_flags
from duplus_nnunet.saved_predictions.cohort_rows import CaseRow, measure_case
from duplus_nnunet.saved_predictions.folder import LabelFolder


@dataclass(frozen=True)
class TargetSummary:
    """One target over all images.

    Attributes:
        target: Name of the target.
        images: Number of images in which it was asked for, or annotated.
        present: Number of those that have it.
        median_ml: Median volume in the latter in ml; None if there are none.
        smallest_ml: Smallest volume in them in ml.
        largest_ml: Largest volume in them in ml.
        touching_border: Number of images in which it touches the edge of the image.
        flagged: Number of images in which something about it is implausible.
    """

    target: str
    images: int
    present: int
    median_ml: float | None
    smallest_ml: float | None
    largest_ml: float | None
    touching_border: int
    flagged: int


@dataclass(frozen=True)
class Cohort:
    """A table over images.

    Attributes:
        folder: What was measured.
        rows: Measures of the images, by name.
        flags: What is implausible.
        failed: Reason why an image could not be measured, by case.
    """

    folder: LabelFolder
    rows: tuple[CaseRow, ...]
    flags: tuple[Flag, ...]
    failed: Mapping[str, str]

    def summarise(self) -> list[TargetSummary]:
        """Summarise each target over all images."""
        return [self._summarise_target(target) for target in self.folder.regions]

    def _summarise_target(self, target: str) -> TargetSummary:
        asked = [row.targets[target] for row in self.rows if target in row.targets]
        volumes = [row.volume_ml for row in asked if row.present]
        flagged = {flag.case for flag in self.flags if flag.target == target}
        return TargetSummary(
            target,
            len(asked),
            len(volumes),
            float(np.median(volumes)) if volumes else None,
            min(volumes, default=None),
            max(volumes, default=None),
            sum(bool(row.touches_border) for row in asked),
            len(flagged),
        )


def measure_cohort(folder: LabelFolder) -> Cohort:
    """Measure all images of a folder; one that cannot be measured does not stop the others."""
    rows, failed = [], {}
    for case in track(folder.cases, len(folder.cases), "measuring", "image"):
        try:
            rows.append(measure_case(case, folder))
        except DuplusError as error:
            failed[case.name] = str(error)
    return Cohort(folder, tuple(rows), tuple(find_flags(rows, list(folder.regions))), failed)
