"""Image features for the prognosis: in comes a preprocessed image, out come numbers of what the network sees in it.

nnU-Net's own windows, predicted in the image's own context, without mirroring and without augmentation: the same image
gives the same numbers. Where an adapter is asked for, the lesion is still the base's, so that what is measured of it
stays; the bottlenecks alone are the adapter's.
"""

import re
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
from duplus_nnunet.networks.pooling import Lesion, Windows, measure_lesion, pool_windows, weigh
from duplus_nnunet.planners.context_plans import configure
from duplus_nnunet.prompt_bank import PromptBank

# Words in the name of a target that is a lesion; tissue that belongs to a tumour, such as its oedema, is none.
LESION = re.compile(
    r"tumou?r|lesion|sarcoma|carcinoma|cancer|metasta|glioma|nodule|neoplasm|malignan|lymphoma|melanoma|blastoma|"
    r"(^|\W)gtv",
    re.IGNORECASE,
)
STEP = 0.5

Row = NDArray[np.float32]


def choose_lesions(bank: PromptBank, wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Choose the targets of each context that are lesions.

    Args:
        bank: The model's prompts.
        wanted: Names, labels or synonyms; none means those whose names say so.

    Returns:
        Names by context, perhaps none.

    Raises:
        PromptError: One is not known.
    """
    named = set(bank.find_targets(wanted)) if wanted else {name for name in bank.names if LESION.search(name)}
    return {context: tuple(name for name in bank.names_in(context) if name in named) for context in bank.contexts}


def note_lesions(lesions: Mapping[str, Sequence[str]]) -> list[str]:
    """Say what a reader has to know of the choice, a sentence a context."""
    return [
        f"In the context {context!r} no target is known to be a lesion, so that its images are averaged as a whole and "
        "nothing is measured. Name one by settings.survival.lesion_targets, if there is one."
        for context, names in lesions.items()
        if not names
    ]


def name_features(context: str, features: int, channels: int, has_lesion: bool) -> list[tuple[str, str]]:
    """Name the numbers of a context's images, and say of which kind each is.

    Args:
        context: The context.
        features: F, channels of the bottleneck.
        channels: C, of the image.
        has_lesion: Whether one of its targets is a lesion.
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
    """What nnU-Net's predictor is made of.

    Attributes:
        plans_manager: nnU-Net's, of the model.
        configuration: nnU-Net's, of no context.
        dataset_json: Of the model.
        device: Where the network is.
    """

    plans_manager: Any
    configuration: Any
    dataset_json: Any
    device: torch.device


class FeatureReader:
    """Reads numbers off preprocessed images; the network is left as it was found.

    Args:
        network: In the way in which it is to answer; eval mode and a single resolution are set for each image.
        host: What nnU-Net's predictor is made of.
        bank: The model's prompts.
        lesions: Targets that are lesions, by context.
        adapter: Whose bottlenecks are pooled; "" is the base's own.
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
        """Size of a voxel of a context's preprocessed images, in mm."""
        found = configure(self.host.configuration, self.bank.form, context).spacing
        return tuple(float(width) for width in found)

    def read(self, image: torch.Tensor, context: str) -> Row:
        """Read the numbers that `name_features` names off an image.

        Args:
            image: As nnU-Net preprocessed it, (C, D, H, W).
            context: Its context.

        Raises:
            DataError: A number is none, as of an image that holds NaN.
        """
        with self.prepare(context), torch.inference_mode():
            logits, windows = self._predict(image, context)
            padded, _ = self.pad(image if self.adapter else image[:1])
            if self.adapter:
                windows = self._encode(padded, windows)
        return self.summarise(image, context, logits, windows)

    def find_lesion(self, logits: torch.Tensor, context: str) -> torch.Tensor | None:
        """Return the probability (D, H, W) that a voxel is of any lesion; None if the context has no such target."""
        return logits.float().sigmoid().amax(0).cpu() if self.lesions[context] else None

    def summarise(self, image: torch.Tensor, context: str, logits: torch.Tensor, windows: Windows) -> Row:
        """Make numbers of what the network gave of an image.

        Args:
            image: As for `read`, (C, D, H, W).
            context: Its context.
            logits: Of its lesions, (K, D, H, W).
            windows: Bottlenecks, of the padded image.

        Raises:
            DataError: A number is none.
        """
        spacing, probability = self.spacing(context), self.find_lesion(logits, context)
        padded, inside = self.pad(image[:1])
        numbers: list[float] = []
        for weights in weigh(probability, image.shape[1:], spacing):
            whole = torch.zeros(padded.shape[1:])
            whole[inside[1:]] = weights
            numbers += pool_windows(windows, whole).tolist()
        if probability is not None:
            numbers += _list_measures(measure_lesion(image, probability, spacing))
        row: Row = np.array(numbers, np.float32)
        if not np.isfinite(row).all():
            raise DataError("the image or what the network makes of it holds NaN or infinite numbers")
        return row

    @contextmanager
    def prepare(self, context: str) -> Iterator[None]:
        """Ask for a context's lesions, at one resolution, of the base; put all back."""
        network = self.network
        before = network.training, network.decoder.deep_supervision, network._bound, network.default_adapter
        network.eval()
        network.decoder.deep_supervision, network.default_adapter = False, ""
        # Without a lesion any target will do: nothing but the bottleneck is looked at.
        network.bind(self.bank.draw(context, self.lesions[context] or self.bank.names_in(context)[:1]))
        try:
            yield
        finally:
            training, network.decoder.deep_supervision, network._bound, network.default_adapter = before
            network.train(training)

    def _predict(self, image: torch.Tensor, context: str) -> tuple[torch.Tensor, Windows]:
        """Predict an image by nnU-Net's windows, and keep what the encoder gave of each."""
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
        # Where a GPU was too small for all sums, nnU-Net began again: the last ones count.
        return torch.as_tensor(logits), Windows(maps[-len(starts) :], starts, size)  # type: ignore[arg-type]

    def pad(self, image: torch.Tensor) -> tuple[torch.Tensor, tuple[slice, ...]]:
        """Pad an image (C, D, H, W) as nnU-Net does for its windows; return it, and where the image is in it."""
        padded, inside = pad_nd_image(image, self.host.configuration.patch_size, "constant", {"value": 0}, True, None)
        return padded, tuple(inside)

    def _encode(self, padded: torch.Tensor, windows: Windows) -> Windows:
        """Run an adapter's encoder over the same windows."""
        self.network.default_adapter = self.adapter
        maps = []
        for start in windows.starts:
            box = (slice(None), *(slice(f, f + length) for f, length in zip(start, windows.size, strict=True)))
            window = padded[box][None].contiguous().to(self.host.device)
            maps.append(self.network.encode(window)[0].cpu())
        return Windows(maps, windows.starts, windows.size)


def _list_measures(lesion: Lesion) -> list[float]:
    return [lesion.volume, *lesion.means, *lesion.maxima, float(lesion.found)]
