"""Computes pooled features of targets, by running the network once on one window around each target.

The features of a target are means over its annotated voxels: of the bottleneck, and of the decoder's last map.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from duplus_nnunet.errors import DuplusError
from duplus_nnunet.inference.devices import choose_device
from duplus_nnunet.inference.model import LoadedModel, load_model
from duplus_nnunet.inference.model_folder import ModelFiles
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.model_report.gathering import ReportSource
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.planners.context_plans import configure
from duplus_nnunet.progress import LOG_EVERY, follow
from duplus_nnunet.prompt_registry.raw_dataset import list_images
from duplus_nnunet.reporting.predicted_values import read_region

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PlannedCase:
    """A case whose targets are looked at.

    Attributes:
        name: nnU-Net's case identifier.
        patient: Its patient.
        context: Key of its context.
        targets: Names of the targets.
    """

    name: str
    patient: str
    context: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """The features of one target in one case.

    Attributes:
        case: nnU-Net's case identifier.
        patient: Its patient.
        context: Key of its context.
        target: Name of the target.
        bottleneck: Mean of the bottleneck over the target, (F).
        decoder: Mean of the decoder's last map over the target, (C).
    """

    case: str
    patient: str
    context: str
    target: str
    bottleneck: NDArray[np.float64]
    decoder: NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """All points, and why cases have none."""

    points: Sequence[Point]
    failures: Mapping[str, str] = field(default_factory=dict)


def compute_points(source: ReportSource, fold: str, cases: Sequence[PlannedCase], device: str | None) -> Points:
    """Compute the features of the targets of cases with the network of one fold.

    Args:
        source: A model, whose raw dataset is known.
        fold: Name of the fold.
        cases: The cases.
        device: As for nnU-Net's `-device`; None: CUDA if there is one.

    Raises:
        DuplusError: The model cannot be loaded.
    """
    checkpoint = next(each.checkpoint for each in source.folds if each.name == fold)
    predictor = WindowPredictor(1.0, use_mirroring=False, device=choose_device(device), allow_tqdm=False)
    model = load_model(predictor, ModelFiles(source.folder, (fold,), checkpoint))
    predictor.conditioned_network.to(predictor.device)
    points, failures = list[Point](), dict[str, str]()
    with follow(len(cases), "computing features", "case", LOG_EVERY) as count:
        for case in cases:
            try:
                points += _compute_case(source, model, case)
            except DuplusError as error:
                failures[case.name] = str(error)
            count()
    return Points(points, failures)


def _compute_case(source: ReportSource, model: LoadedModel, case: PlannedCase) -> list[Point]:
    image, labels = _read_case(source, model, case)
    regions = {target.name: read_region(model.dataset_json["labels"][target.label]) for target in model.bank.targets}
    size = tuple(int(length) for length in model.configuration.patch_size)
    network = model.predictor.conditioned_network
    network.eval()
    points = []
    for target in case.targets:
        mask: Mask = np.isin(labels, regions[target])
        if mask.any():
            window, inside = cut_window(image, mask, size)
            network.bind(model.bank.draw(case.context, [target]))
            pooled = pool_features(network, torch.from_numpy(window)[None].to(model.predictor.device), inside)
            points.append(Point(case.name, case.patient, case.context, target, *pooled))
    return points


def _read_case(source: ReportSource, model: LoadedModel, case: PlannedCase) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Read and preprocess a case: the image, (C, D, H, W), and its label map, (D, H, W)."""
    raw, ending = source.raw or Path(), model.dataset_json["file_ending"]
    channels = list_images(raw / "imagesTr", ending, skip_unnumbered=True)[case.name]
    files = [str(file) for _, file in sorted(channels.items())]
    preprocessor = configure(model.configuration, model.bank.form, case.context).preprocessor_class(verbose=False)
    preprocessor.context = case.context
    label_map = str(raw / "labelsTr" / f"{case.name}{ending}")
    data, labels, _ = preprocessor.run_case(files, label_map, model.plans, model.configuration, model.dataset_json)
    return np.asarray(data, np.float32), np.asarray(labels)[0]


def cut_window(image: NDArray[np.float32], mask: Mask, size: Sequence[int]) -> tuple[NDArray[np.float32], Mask]:
    """Cut the window around the voxel of a target that is nearest to its centre; outside of the image it is 0.

    Args:
        image: Preprocessed image, (C, D, H, W).
        mask: The target, (D, H, W), not empty.
        size: Size of the window, in voxels.

    Returns:
        The window of the image, (C, *size), and of the target, which holds some of it.
    """
    voxels = np.argwhere(mask)
    centre = voxels[np.abs(voxels - voxels.mean(0)).sum(1).argmin()]
    padding = [(max(0, length - extent), 0) for length, extent in zip(size, mask.shape, strict=True)]
    padded_mask = np.pad(mask, padding)
    padded = np.pad(image, [(0, 0), *padding])
    starts = [
        int(np.clip(place + before - length // 2, 0, extent - length))
        for place, (before, _), length, extent in zip(centre, padding, size, padded_mask.shape, strict=True)
    ]
    box = tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))
    return np.ascontiguousarray(padded[(slice(None), *box)]), padded_mask[box]


def pool_features(network: ConditionedUNet, window: torch.Tensor, mask: Mask) -> tuple[Any, Any]:
    """Run the network on a window, and average bottleneck and decoder map over a target.

    Args:
        network: The network, bound to prompts and in eval mode.
        window: Shape (1, C, D, H, W).
        mask: The target, (D, H, W), not empty.

    Returns:
        Means (F) of the bottleneck and (C) of the decoder's last map, float64.
    """
    with _record_maps(network) as maps, torch.inference_mode():
        network(window)
    weights = torch.from_numpy(mask.astype(np.float64))[None]
    return tuple(_average(maps[name], weights) for name in ("bottleneck", "decoder"))  # type: ignore[return-value]


@contextmanager
def _record_maps(network: ConditionedUNet) -> Iterator[dict[str, torch.Tensor]]:
    """Record the maps of the next call: the encoder's last, and the one that the decoder's last projection gets."""
    maps: dict[str, torch.Tensor] = {}
    deep, network.decoder.deep_supervision = network.decoder.deep_supervision, False
    hooks = [
        network.encoder.register_forward_hook(lambda *call: maps.update(bottleneck=call[2][-1])),
        network.decoder.seg_layers[-1].register_forward_pre_hook(lambda *call: maps.update(decoder=call[1][0])),
    ]
    try:
        yield maps
    finally:
        network.decoder.deep_supervision = deep
        for hook in hooks:
            hook.remove()


def _average(feature_map: torch.Tensor, weights: torch.Tensor) -> NDArray[np.float64]:
    """Average a map (1, F, d, h, w), each voxel weighted by the share of it that the target fills."""
    depth, height, width = feature_map.shape[2:]
    pooled = functional.adaptive_avg_pool3d(weights, (depth, height, width))[0]
    values = feature_map[0].double().cpu()
    return np.asarray(((values * pooled).sum(dim=(1, 2, 3)) / pooled.sum()).numpy(), np.float64)
