"""Reads a case for a viewer: image and masks, turned to radiological orientation and reduced to the slices shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.grids import find_difference
from duplus_nnunet.data.label_maps import read_image, read_label_map
from duplus_nnunet.errors import DataError
from duplus_nnunet.model_report.blocks import Mask, ViewedCase
from duplus_nnunet.model_report.case_files import OTHER, ModelCases, ShownCase
from duplus_nnunet.model_report.packing import (
    FINEST,
    choose_levels,
    fit_shape,
    measure_areas,
    reduce_mask,
    resize_values,
)
from duplus_nnunet.outputs.answer import CaseAnswer, Geometry
from duplus_nnunet.outputs.world import NO_REORIENTATION, Reorientation, find_reorientation

Volume = NDArray[np.bool_]
Answers = Mapping[str, CaseAnswer]

# Source: usual windows of soft tissue and of lung, in HU.
_SOFT_TISSUE, _LUNG = (-160.0, 240.0), (-1000.0, 400.0)
_MOST_LUNG = -400.0  # HU; the median of targets that lie in the lung is below
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class _Pair:
    """Mask of a target on the whole grid, predicted and annotated; None where it is not known."""

    prediction: Volume | None
    truth: Volume | None

    @property
    def known(self) -> list[Volume]:
        return [mask for mask in (self.prediction, self.truth) if mask is not None]


@dataclass(frozen=True)
class _Scan:
    """Image and masks of a case in the order of nnU-Net's reader."""

    image: NDArray[np.float32]
    geometry: Geometry
    find_pair: Callable[[str], _Pair]


def read_case(model: ModelCases, case: ShownCase, targets: Sequence[str], answers: Answers) -> ViewedCase:
    """Read a case for a viewer.

    Args:
        model: The model.
        case: The case.
        targets: Names of the targets to show.
        answers: Predictions of cases that have no predicted label map, by case identifier.

    Raises:
        DataError: A file cannot be read, or image and label map lie on different grids.
    """
    scan = _read_scan(model, case, answers.get(case.name))
    turn = find_reorientation(scan.geometry) or NO_REORIENTATION
    image = turn.apply(scan.image)
    spacing = turn.sort(scan.geometry.spacing)
    areas = [measure_areas(turn.apply(mask)) for target in targets for mask in scan.find_pair(target).known]
    levels = choose_levels(areas, len(image), FINEST.slices)
    shape = fit_shape((image.shape[1], image.shape[2]), FINEST.pixels)
    masks = [_make_mask(model, case, target, scan.find_pair(target), (turn, levels, shape)) for target in targets]
    _, height, width = image.shape
    return ViewedCase(
        title=describe_case(model, case),
        context_prompt=model.form.contexts[case.context].sentences[0],
        image=np.stack([resize_values(image[level], shape) for level in levels]),
        spacing=(spacing[0], spacing[1] * height / shape[0], spacing[2] * width / shape[1]),
        window=_choose_window(model, case, scan, targets),
        masks=masks,
        levels=levels,
        depth=len(image),
    )


def describe_case(model: ModelCases, case: ShownCase) -> str:
    """Describe a case in one line, such as `Computed tomography (amos_ct), case amos_0007, held out in fold 0`."""
    modality = model.form.contexts[case.context].modality
    name = f"{modality[0].upper()}{modality[1:]} ({case.context})" if modality else case.context
    fold = f" in fold {case.fold}" if case.fold is not None else ""
    origin = "" if case.origin == OTHER else f", {case.origin}{fold}"
    return f"{name}, case {case.name}{origin}"


def _read_scan(model: ModelCases, case: ShownCase, answer: CaseAnswer | None) -> _Scan:
    reader = _find_reader(model.reader)
    image, geometry = _read_image(case, reader)
    truth = None if case.truth is None else _read_labels(case.truth, reader, geometry)
    predicted = None if case.prediction is None else _read_labels(case.prediction, reader, geometry)
    answered = {} if answer is None else {target.name: target for target in answer.targets}
    valid = None if truth is None or model.ignore is None else truth != model.ignore

    def find_pair(target: str) -> _Pair:
        prediction = _select(predicted, model.regions, target)
        if target in answered:
            prediction = np.zeros(geometry.shape, np.bool_)
            prediction[answered[target].box] = answered[target].mask
        annotated = _select(truth, model.regions, target) if case.is_annotated(target) else None
        if valid is not None and annotated is not None:
            annotated &= valid
            prediction = None if prediction is None else prediction & valid
        return _Pair(prediction, annotated)

    return _Scan(image, geometry, find_pair)


def _find_reader(name: str) -> type:
    from nnunetv2.imageio import reader_writer_registry

    reader: type = reader_writer_registry.recursive_find_reader_writer_by_name(name)
    return reader


def _read_image(case: ShownCase, reader: type) -> tuple[NDArray[np.float32], Geometry]:
    """Read the first channel of an image, (D, H, W)."""
    values, properties = read_image(case.images[0], reader)
    depth, height, width = values.shape[1:]
    z, y, x = (float(size) for size in properties["spacing"])
    return values[0].astype(np.float32), Geometry((depth, height, width), (z, y, x), properties)


def _read_labels(file: Any, reader: type, geometry: Geometry) -> NDArray[Any]:
    labels, properties = read_label_map(file, reader)
    values: NDArray[Any] = labels.labels[0]
    difference = find_difference(properties, values.shape, geometry.properties, geometry.shape)
    if difference:
        raise DataError(
            f"The label map {file} does not lie on the grid of its image: {difference}. Give that of this image."
        )
    return values


def _select(labels: NDArray[Any] | None, regions: Mapping[str, tuple[int, ...]], target: str) -> Volume | None:
    if labels is None or target not in regions:
        return None
    region = regions[target]
    mask: Volume = labels == region[0] if len(region) == 1 else np.isin(labels, region)
    return mask


def _make_mask(
    model: ModelCases,
    case: ShownCase,
    target: str,
    pair: _Pair,
    place: tuple[Reorientation, list[int], tuple[int, int]],
) -> Mask:
    turn, levels, shape = place

    def reduce(mask: Volume | None) -> Volume | None:
        return None if mask is None else reduce_mask(turn.apply(mask)[levels], shape)

    sentences = model.form.contexts[case.context].target_prompts.get(target)
    return Mask(
        target=target,
        prompt=sentences[0] if sentences else target,
        prediction=reduce(pair.prediction),
        truth=reduce(pair.truth),
        note=_describe_dice(pair),
    )


def _describe_dice(pair: _Pair) -> str:
    """Describe the Dice of a target in the whole image; empty if it has none."""
    if pair.prediction is None or pair.truth is None:
        return ""
    both = int(np.count_nonzero(pair.prediction)) + int(np.count_nonzero(pair.truth))
    return f"Dice {2 * np.count_nonzero(pair.prediction & pair.truth) / both:.2f}" if both else ""


def _choose_window(model: ModelCases, case: ShownCase, scan: _Scan, targets: Sequence[str]) -> tuple[float, float]:
    """Choose the darkest and brightest intensity: a usual window for CT, else percentiles of the image."""
    if "computed tomography" in model.form.contexts[case.context].modality.casefold():
        masks = [mask for target in targets for mask in scan.find_pair(target).known]
        inside = [float(np.median(scan.image[mask])) for mask in masks if mask.any()]
        return _LUNG if inside and float(np.median(inside)) < _MOST_LUNG else _SOFT_TISSUE
    finite = scan.image[np.isfinite(scan.image)]
    if not finite.size:
        return 0.0, 1.0
    dark, bright = (float(value) for value in np.percentile(finite, _PERCENTILES))
    return dark, max(bright, dark + 1e-6)
