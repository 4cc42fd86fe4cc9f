"""The prediction of one image from Python: named masks on its grid."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError, PromptError, describe_unknown
from duplus_nnunet.outputs.answer import CaseAnswer, Removal, TargetAnswer
from duplus_nnunet.outputs.probabilities import to_probabilities
from duplus_nnunet.outputs.world import find_affine

Volume = NDArray[Any]


@dataclass(frozen=True)
class Prediction:
    """The prediction of one image; arrays are in the order (z, y, x).

    Attributes:
        answer: All of it, targets in their boxes.
    """

    answer: CaseAnswer

    @property
    def context(self) -> str:
        """Name of the context in which the image was predicted."""
        return self.answer.context

    @property
    def labels(self) -> Volume:
        """Combined label map, nnU-Net's way."""
        return self.answer.labels

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel along (z, y, x), in mm."""
        return self.answer.geometry.spacing

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """From indices (z, y, x) to world coordinates in mm (RAS); None if the file has none."""
        return find_affine(self.answer.geometry)

    @cached_property
    def masks(self) -> Mapping[str, NDArray[np.bool_]]:
        """Mask of each target on the whole grid; one that is not in the image is empty."""
        return {target.name: self._spread(target, target.mask, np.bool_) for target in self.answer.targets}

    @property
    def volumes(self) -> dict[str, float]:
        """Volume of each target, in ml."""
        voxel = float(np.prod(self.spacing)) / 1000
        return {target.name: float(np.count_nonzero(target.mask)) * voxel for target in self.answer.targets}

    @property
    def presence(self) -> dict[str, float | None]:
        """Probability, 0 to 1, that each target is in the image at all; None if the model was not calibrated."""
        return {target.name: target.presence for target in self.answer.targets}

    @property
    def removed(self) -> Mapping[str, Removal]:
        """What the options keep_largest and remove_small removed, by target."""
        return {removal.target: removal for removal in self.answer.removed}

    def write_dicom(
        self, base: str | os.PathLike[str], slices: Sequence[str | os.PathLike[str]], formats: Sequence[str]
    ) -> tuple[Path, ...]:
        """Write DICOM files that refer to the series that the image was made from.

        Args:
            base: File name to which an ending is added, such as `_seg.dcm`.
            slices: Every file of the series, in any order.
            formats: Some of `dicom-seg`, `dicom-labelmap` and `rtstruct`.

        Returns:
            The files. Targets that are not in the image are left out; if none is there, so is the file.

        Raises:
            DataError: The slices are not one series, or the image has no world coordinates.
            HostError: The extra `dicom` is not installed.
        """
        from duplus_nnunet.inference.dicom_output import write_dicom

        return write_dicom(self.answer, slices, Path(base), formats).files

    def probabilities(self, name: str) -> NDArray[np.float16]:
        """Return a target's probabilities on the whole grid; 0 where they were not kept, see `predict`."""
        target = self._find(name)
        return self._spread(target, to_probabilities(target.logits), np.float16)

    def to_nibabel(self, name: str | None = None) -> Any:
        """Return a mask, or the label map, as a NIfTI image of nibabel.

        Raises:
            DataError: The image has no world coordinates.
        """
        import nibabel

        affine = self.affine
        if affine is None:
            raise DataError("The image has no world coordinates, so that its masks cannot be made a NIfTI image.")
        values = self._choose(name).transpose(2, 1, 0)
        return nibabel.Nifti1Image(values, affine[:, [2, 1, 0, 3]])

    def to_sitk(self, name: str | None = None) -> Any:
        """Return a mask, or the label map, as an image of SimpleITK."""
        import SimpleITK

        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(self._choose(name)))
        affine = self.affine
        if affine is None:
            image.SetSpacing([float(width) for width in self.spacing[::-1]])
            return image
        to_lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3][:, [2, 1, 0, 3]]
        widths = np.linalg.norm(to_lps[:, :3], axis=0)
        image.SetSpacing(widths.tolist())
        image.SetDirection((to_lps[:, :3] / widths).ravel().tolist())
        image.SetOrigin(to_lps[:, 3].tolist())
        return image

    def _choose(self, name: str | None) -> Volume:
        return self.labels if name is None else self._spread(self._find(name), self._find(name).mask, np.uint8)

    def _find(self, name: str) -> TargetAnswer:
        targets = {target.name: target for target in self.answer.targets}
        if name not in targets:
            raise PromptError(describe_unknown("target", name, targets))
        return targets[name]

    def _spread(self, target: TargetAnswer, values: Volume, dtype: Any) -> Volume:
        whole = np.zeros(self.answer.geometry.shape, dtype)
        whole[target.box] = values
        return whole
