"""Writes occlusion maps: the effect of each part of an image on the patient's risk, one NIfTI file for each case.

A map has the grid of the image file; each voxel takes the value of the nearest voxel of the preprocessed image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from duplus_nnunet.data.orientations import read_turn
from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.inference.answering import read_geometry
from duplus_nnunet.inference.reading import PreparedCase
from duplus_nnunet.outputs.naming import name_case
from duplus_nnunet.outputs.world import find_affine
from duplus_nnunet.progress import LOG_EVERY, follow
from duplus_nnunet.survival.evaluation.attribution import measure_box_effects
from duplus_nnunet.survival.imaging.image_features import Row
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.prediction.images import Features, ImageNetworks, NewImage
from duplus_nnunet.survival.prediction.occlusion import BaseCalls, Box, Boxes, WindowedImage, choose_boxes, spread
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.table import Record

Values = NDArray[np.float32]

FOLDER_NAME = "occlusion"
MOST = 512
_ZYX = [2, 1, 0, 3]


@dataclass(frozen=True)
class Occlusion:
    """Settings of occlusion maps.

    Attributes:
        size: Side of a box, in mm; None: an eighth of the longest side of the region of interest.
        most: Maximum number of boxes of a case; 0: no maps.
    """

    size: float | None = None
    most: int = MOST


@dataclass(frozen=True)
class Mapper:
    """Computes and writes the occlusion maps of all cases.

    Attributes:
        models: One for each fold.
        networks: Networks of the folds.
        features: Image features of all cases.
        how: Size and number of boxes.
        folder: Output folder of the maps.
    """

    models: Sequence[SurvivalModel]
    networks: ImageNetworks
    features: Features
    how: Occlusion
    folder: Path

    def write(self, image: NewImage, item: PreparedCase, record: Record) -> dict[str, Any]:
        """Compute and write the map of one case; returns a description as plain data.

        Raises:
            DataError: The image can no longer be read.
        """
        if item.error:
            raise DataError(item.error)
        context = image.source.context
        calls: BaseCalls = {}  # folds whose adapters have the same base share its passes
        views = {key: WindowedImage(one, item.data, context, calls) for key, one in self.networks.readers.items()}
        first = next(iter(self.networks.readers.values()))
        region = _join([view.find_region() for view in views.values()])
        boxes = choose_boxes(region, first.spacing(context), self.how.size, self.how.most)
        values = self._measure(image, record, views, boxes)
        volume = spread(values, boxes.boxes, item.data.shape[1:])
        made = make_nifti(volume, first.host.plans_manager, item.properties, Path(image.source.files[0]))
        file = self.folder / f"{name_case(image.source.name)}.nii.gz"
        with open_new_file(file) as new:
            made.to_filename(new)
        windows = sum(view.windows for view in views.values())
        return {"boxes": len(boxes.boxes), "box_mm": round(boxes.size, 3), "enlarged": boxes.enlarged,
                "windows": windows, "file": f"{self.folder.name}/{file.name}"}  # fmt: skip

    def _measure(
        self, image: NewImage, record: Record, views: dict[str, WindowedImage], boxes: Boxes
    ) -> Sequence[float]:
        case = image.source.name
        tables = {key: self._join(key, image, view.row) for key, view in views.items()}
        changed: dict[str, dict[str, Row]] = {key: {} for key in views}
        with follow(len(boxes.boxes) * len(views), f"occluding {case}", "box", LOG_EVERY) as count:
            for number, box in enumerate(boxes.boxes):
                calls: BaseCalls = {}
                for key, view in views.items():
                    table = self._join(key, image, view.read_without(box, calls))
                    changed[key][f"box {number}"] = table.rows[image.patient]
                    count()
        keys = self.features.keys
        of_folds = [tables[key] for key in keys], [changed[key] for key in keys]
        return [float(value) for value in measure_box_effects(self.models, record, *of_folds)]

    def _join(self, key: str, image: NewImage, row: Row) -> FeatureTable:
        """Return the features of all images of the patient, with those of one image replaced."""
        own = [other for other in self.features.images if other.patient == image.patient]
        table = self.networks.join(key, own, {**self.features.rows[key], image.source.name: row})
        if table is None:
            raise DataError(f"No features of {image.source.name} were read; there is no occlusion map of it.")
        return table


def _join(regions: Sequence[Box]) -> Box:
    """Return the smallest box that contains all regions."""
    z, y, x = (
        slice(min(part.start for part in axis), max(part.stop for part in axis)) for axis in zip(*regions, strict=True)
    )
    return z, y, x


def bring_back(values: Values, properties: Mapping[str, Any], transpose_backward: Sequence[int]) -> Values:
    """Resample an array (D, H, W) from the preprocessed grid to the image's (z, y, x); NaN where nnU-Net cropped."""
    shape = properties["shape_after_cropping_and_before_resampling"]
    places = [
        np.minimum(((np.arange(length) + 0.5) * now / length).astype(int), now - 1)
        for length, now in zip(shape, values.shape, strict=True)
    ]
    whole = np.full(tuple(properties["shape_before_cropping"]), np.nan, np.float32)
    whole[tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])] = values[np.ix_(*places)]
    return read_turn(properties).invert().apply(whole.transpose(tuple(transpose_backward)))


def make_nifti(values: Values, plans: PlansManager, properties: dict[str, Any], file: Path) -> Any:
    """Make a NIfTI image (nibabel) on the grid of an image file.

    Args:
        values: Values on the preprocessed grid, (D, H, W).
        plans: nnU-Net's plans of the model.
        properties: nnU-Net's properties of the case.
        file: The image file; if it is not a NIfTI file, the grid is taken from the properties of nnU-Net's reader.
    """
    import nibabel

    volume = bring_back(values, properties, plans.transpose_backward).transpose(2, 1, 0)
    geometry = read_geometry(plans, properties)
    affine = find_affine(geometry)
    if affine is None:
        return nibabel.Nifti1Image(volume, np.diag([*geometry.spacing[::-1], 1.0]))
    placed = nibabel.Nifti1Image(volume, affine[:, _ZYX])
    if not file.name.endswith((".nii", ".nii.gz")):
        return placed
    original: Any = nibabel.load(file)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(placed.affine), nibabel.io_orientation(original.affine)
    )
    turned = nibabel.orientations.apply_orientation(volume, turn)
    if turned.shape != original.shape[:3]:
        return placed
    image = nibabel.Nifti1Image(turned, original.affine)
    image.header.set_xyzt_units("mm")
    return image
