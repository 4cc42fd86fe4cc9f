"""Maps of what in an image drove a patient's risk, a NIfTI file a case."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.reading import PreparedCase
from duplus_nnunet.outputs.files import open_new_file
from duplus_nnunet.survival.evaluation.attribution import measure_box_effects
from duplus_nnunet.survival.imaging.image_features import Row
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.prediction.images import Features, ImageNetworks, NewImage
from duplus_nnunet.survival.prediction.occlusion import Box, Boxes, WindowedImage, choose_boxes, spread
from duplus_nnunet.survival.prediction.occlusion_map import make_nifti
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.table import Record

FOLDER_NAME = "occlusion"
MOST = 512


@dataclass(frozen=True)
class Occlusion:
    """How maps are made.

    Attributes:
        size: Side of a box, in mm; None: an eighth of the region's longest side.
        most: Number of boxes of a case, at most; 0: no maps.
    """

    size: float | None = None
    most: int = MOST


@dataclass(frozen=True)
class Mapper:
    """Makes the maps of all cases.

    Attributes:
        models: One a fold.
        networks: Theirs.
        features: Of all cases.
        how: Size and number of boxes.
        folder: Where maps go.
    """

    models: Sequence[SurvivalModel]
    networks: ImageNetworks
    features: Features
    how: Occlusion
    folder: Path

    def write(self, image: NewImage, item: PreparedCase, record: Record) -> dict[str, Any]:
        """Make and write the map of one case; returns what there is to say of it, as plain data.

        Raises:
            DataError: The image cannot be read any more.
        """
        if item.error:
            raise DataError(item.error)
        context = image.source.context
        views = {key: WindowedImage(one, item.data, context) for key, one in self.networks.readers.items()}
        first = next(iter(self.networks.readers.values()))
        region = _join([view.find_region() for view in views.values()])
        boxes = choose_boxes(region, first.spacing(context), self.how.size, self.how.most)
        values = self._measure(image, record, views, boxes)
        volume = spread(values, boxes.boxes, item.data.shape[1:])
        made = make_nifti(volume, first.host.plans_manager, item.properties, Path(image.source.files[0]))
        file = self.folder / f"{image.source.name}.nii.gz"
        with open_new_file(file) as new:
            made.to_filename(new)
        windows = sum(view.windows for view in views.values())
        return {"boxes": len(boxes.boxes), "box_mm": round(boxes.size, 3), "enlarged": boxes.enlarged,
                "windows": windows, "file": f"{self.folder.name}/{file.name}"}  # fmt: skip

    def _measure(
        self, image: NewImage, record: Record, views: dict[str, WindowedImage], boxes: Boxes
    ) -> Sequence[float]:
        case = image.source.name
        bar = tqdm(total=len(boxes.boxes) * len(views), desc=f"occluding {case}", unit="box", disable=None)
        tables: dict[str, FeatureTable | None] = {}
        changed: dict[str, dict[str, Row]] = {}
        with bar:
            for key, view in views.items():
                tables[key] = self._join(key, image, view.row)
                changed[key] = {}
                for number, box in enumerate(boxes.boxes):
                    table = self._join(key, image, view.read_without(box))
                    changed[key][f"box {number}"] = table.rows[image.patient]
                    bar.update()
        keys = self.features.keys
        of_folds = [tables[key] for key in keys], [changed[key] for key in keys]
        return [float(value) for value in measure_box_effects(self.models, record, *of_folds)]

    def _join(self, key: str, image: NewImage, row: Row) -> FeatureTable:
        """Join the patient's images as a network sees them, one of them otherwise."""
        own = [other for other in self.features.images if other.patient == image.patient]
        found = self.networks.join(key, own, {**self.features.rows[key], image.source.name: row})
        if found is None:
            raise DataError(f"{image.source.name} was not read, so that there is no map of it.")
        return found


def _join(regions: Sequence[Box]) -> Box:
    """Return the smallest box that holds all regions."""
    z, y, x = (
        slice(min(one.start for one in axis), max(one.stop for one in axis)) for axis in zip(*regions, strict=True)
    )
    return z, y, x
