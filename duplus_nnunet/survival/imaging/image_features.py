"""Computes features of a preprocessed image by a segmentation network: pooled bottlenecks and lesion measurements.

Uses nnU-Net's sliding window with the context prompt of the image, without mirroring or augmentation, so that the
features of an image are reproducible. With an adapter, the bottlenecks are the adapter's, while the lesion is still the
one segmented by the base model.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor, pad_nd_image
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.networks.pooling import Lesion, Windows, compute_pooling_weights, measure_lesion, pool_windows
from duplus_nnunet.planners.context_plans import configure
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.names import is_lesion

STEP = 0.5

Row = NDArray[np.float32]


def choose_lesions(bank: PromptBank, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Choose the targets of each context that are lesions.

    Args:
        bank: Prompts of the model.
        targets: Names, labels or synonyms of lesions; empty: targets whose names say so.

    Returns:
        Names by context; may be empty.

    Raises:
        PromptError: A target is unknown.
    """
    lesions = set(bank.find_targets(targets)) if targets else {name for name in bank.names if is_lesion(name)}
    return {context: tuple(name for name in bank.names_in(context) if name in lesions) for context in bank.contexts}


def note_lesions(lesions: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a note for each context without a lesion."""
    return [
        f"The context {context!r} has no target known as a lesion: features are averaged over the whole image and no "
        "lesion is measured. If one of its targets is a lesion, name it in settings.survival.lesion_targets."
        for context, names in lesions.items()
        if not names
    ]


def name_features(context: str, features: int, channels: int, has_lesion: bool) -> list[tuple[str, str]]:
    """List name and kind ("pooled", "lesion", "measure") of each feature of the images of a context.

    Args:
        context: The context.
        features: F, channels of the bottleneck.
        channels: C, channels of the image.
        has_lesion: Whether a target of the context is a lesion.
    """
    names = [(f"{context}: F_dense {number}", "pooled") for number in range(features)]
    if not has_lesion:
        return names
    names += [(f"{context}: lesion F_dense {number}", "lesion") for number in range(features)]
    ends = ["", *(f" of channel {number}" for number in range(2, channels + 1))]
    measures = ["volume", *(f"mean{end}" for end in ends), *(f"max{end}" for end in ends), "found"]
    return names + [(f"{context}: lesion {measure}", "measure") for measure in measures]


@dataclass(frozen=True)
class HostModel:
    """Parts of nnU-Net's predictor.

    Attributes:
        plans_manager: nnU-Net's plans manager of the model.
        configuration: nnU-Net's configuration, not specific to a context.
        dataset_json: Content of the model's dataset.json.
        device: Device of the network.
    """

    plans_manager: Any
    configuration: Any
    dataset_json: Any
    device: torch.device


class FeatureReader:
    """Computes features of preprocessed images; the state of the network is restored after each image.

    Args:
        network: The segmentation network; eval mode and full resolution only are set for each image.
        host: Parts of nnU-Net's predictor.
        bank: Prompts of the model.
        lesions: Targets that are lesions, by context.
        adapter: Adapter whose bottlenecks are pooled; "": none, the base model.
    """

    def __init__(
        self,
        network: ConditionedUNet,
        host: HostModel,
        bank: PromptBank,
        lesions: Mapping[str, Sequence[str]],
        adapter: str = "",
    ) -> None:
        self.network, self.host, self.bank, self.lesions, self.adapter = network, host, bank, lesions, adapter

    @property
    def features(self) -> int:
        """F, channels of the bottleneck."""
        return int(self.network.encoder.output_channels[-1])

    def spacing(self, context: str) -> tuple[float, ...]:
        """Spacing of the preprocessed images of a context, in mm."""
        spacing = configure(self.host.configuration, self.bank.form, context).spacing
        return tuple(float(width) for width in spacing)

    def read(self, image: torch.Tensor, context: str) -> Row:
        """Compute the features listed by `name_features` for an image.

        Args:
            image: Preprocessed image, (C, D, H, W).
            context: Its context.

        Raises:
            DataError: A feature is not finite, for example of an image with NaN.
        """
        with self.prepare(context), torch.inference_mode():
            logits, windows = self._predict(image, context)
            padded, _ = self.pad(image if self.adapter else image[:1])
            if self.adapter:
                windows = self._encode(padded, windows)
        return self.summarise(image, context, logits, windows)

    def find_lesion(self, logits: torch.Tensor, context: str) -> torch.Tensor | None:
        """Return the probability (D, H, W) of any lesion; None if no target of the context is a lesion."""
        return logits.float().sigmoid().amax(0).cpu() if self.lesions[context] else None

    def summarise(self, image: torch.Tensor, context: str, logits: torch.Tensor, windows: Windows) -> Row:
        """Compute features from the outputs of the network.

        Args:
            image: Preprocessed image, (C, D, H, W).
            context: Its context.
            logits: Logits of its lesions, (K, D, H, W).
            windows: Bottlenecks of the windows of the padded image.

        Raises:
            DataError: A feature is not finite.
        """
        spacing, probability = self.spacing(context), self.find_lesion(logits, context)
        padded, inside = self.pad(image[:1])
        numbers: list[float] = []
        for weights in compute_pooling_weights(probability, image.shape[1:], spacing):
            whole = torch.zeros(padded.shape[1:])
            whole[inside[1:]] = weights
            numbers += pool_windows(windows, whole).tolist()
        if probability is not None:
            numbers += _list_measures(measure_lesion(image, probability, spacing))
        row: Row = np.array(numbers, np.float32)
        if not np.isfinite(row).all():
            raise DataError("the image or the output of the network has NaN or infinite values")
        return row

    @contextmanager
    def prepare(self, context: str) -> Iterator[None]:
        """Bind the lesions of a context to the base network at full resolution; restores its state at the end."""
        network = self.network
        before = network.training, network.decoder.deep_supervision, network._bound, network.default_adapter
        network.eval()
        network.decoder.deep_supervision, network.default_adapter = False, ""
        # Without a lesion any target will do: only the bottleneck is used.
        network.bind(self.bank.draw(context, self.lesions[context] or self.bank.names_in(context)[:1]))
        try:
            yield
        finally:
            training, network.decoder.deep_supervision, network._bound, network.default_adapter = before
            network.train(training)

    def _predict(self, image: torch.Tensor, context: str) -> tuple[torch.Tensor, Windows]:
        """Predict an image by nnU-Net's sliding window; returns the logits and the bottleneck of each window."""
        host, maps = self.host, list[torch.Tensor]()
        predictor = nnUNetPredictor(STEP, True, False, host.device.type == "cuda", host.device, allow_tqdm=False)
        configuration = configure(host.configuration, self.bank.form, context)
        predictor.manual_initialization(
            self.network, host.plans_manager, configuration, None, host.dataset_json, "DuPLUSTrainer", None
        )
        size = tuple(int(length) for length in configuration.patch_size)
        shape = self.pad(image[:1])[0].shape[1:]
        slicers = predictor._internal_get_sliding_window_slicers(shape)
        hook = self.network.encoder.register_forward_hook(lambda *call: maps.append(call[2][-1][0].float().cpu()))
        try:
            logits = predictor.predict_sliding_window_return_logits(image)
        finally:
            hook.remove()
        starts = [tuple(part.start for part in slicer[1:]) for slicer in slicers]
        # If a GPU runs out of memory, nnU-Net starts over: the last windows count.
        return torch.as_tensor(logits), Windows(maps[-len(starts) :], starts, size)  # type: ignore[arg-type]

    def pad(self, image: torch.Tensor) -> tuple[torch.Tensor, tuple[slice, ...]]:
        """Pad an image (C, D, H, W) for nnU-Net's sliding window; returns it, and the slices of the image in it."""
        padded, inside = pad_nd_image(image, self.host.configuration.patch_size, "constant", {"value": 0}, True, None)
        return padded, tuple(inside)

    def _encode(self, padded: torch.Tensor, windows: Windows) -> Windows:
        """Compute the bottlenecks of the same windows with the adapter."""
        self.network.default_adapter = self.adapter
        maps = []
        for start in windows.starts:
            box = (slice(None), *(slice(f, f + length) for f, length in zip(start, windows.size, strict=True)))
            window = padded[box][None].contiguous().to(self.host.device)
            maps.append(self.network.encode(window)[0].cpu())
        return Windows(maps, windows.starts, windows.size)


def _list_measures(lesion: Lesion) -> list[float]:
    return [lesion.volume, *lesion.means, *lesion.maxima, float(lesion.found)]
