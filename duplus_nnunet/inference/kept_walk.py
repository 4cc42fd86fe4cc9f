"""Walks over the windows of an image as nnU-Net does, but takes from what was kept of calls of the network.

The heads of the bound prompts are applied to the kept maps, at all voxels or at some of them alone. Sums and their
order are nnU-Net's, so that logits are equal to the bit.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from numpy.typing import NDArray

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.voxels import Voxels
from duplus_nnunet.inference.window_maps import CallMaps, KeptMap, flip_box, to_box
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.networks.prompts import AdapterPrompts, join_parts
from duplus_nnunet.outputs.answer import Box

# Array axes (0 to 2) along which a window is mirrored.
Flips = tuple[int, ...]
# A window of an image (C, D, H, W), and some of its voxels: their numbers among those wanted, (n,), and where in the
# window they lie, (3, n).
Window = tuple[slice, ...]
Selected = tuple[NDArray[np.int64], NDArray[np.int64]]
# Matrix products of very few columns may be summed in another order; columns are filled up to a multiple of this.
_COLUMNS = 64


class Caller(Protocol):
    """What a walk needs of nnU-Net's predictor, whose network is bound to prompts.

    Attributes:
        network: The network, which may be compiled or distributed.
        device: Device of the network.
        use_gaussian: Whether voxels in the middle of a window weigh more.
        configuration_manager: nnU-Net's configuration, with the patch size.
    """

    network: torch.nn.Module
    device: torch.device
    use_gaussian: bool
    configuration_manager: Any

    @property
    def conditioned_network(self) -> ConditionedUNet:
        """The network itself."""

    def predict_window(self, call: Callable[[Flips], torch.Tensor]) -> torch.Tensor:
        """Predict one window, (1, K, ...), from the calls for its mirror images."""


class KeptWalk:
    """A walk over the windows of one image, of which calls were kept.

    Args:
        maps: What was kept; the network is called where that is not enough.
        voxels: Voxels of the padded image whose logits are wanted; None: of all.

    Attributes:
        voxels: As given.
        found: Logits (K, N) of the voxels, of the fold predicted last, on its device; None if all are wanted.
    """

    def __init__(self, maps: CallMaps, voxels: Voxels | None) -> None:
        self._maps, self.voxels = maps, voxels
        self.found: torch.Tensor | None = None

    def predict(
        self,
        predictor: Caller,
        data: torch.Tensor,
        windows: Sequence[tuple[slice, ...]],
        device: torch.device,
    ) -> torch.Tensor:
        """Predict an image by one fold.

        Args:
            predictor: Its network is bound to K prompts.
            data: Padded image, (C, D, H, W).
            windows: As nnU-Net lists them, with an axis of channels first.
            device: Where logits are summed up.

        Returns:
            Logits (K, D, H, W), float16; if some voxels are wanted, without meaning, see `found`.

        Raises:
            ModelError: The network gave infinite logits.
        """
        count, shape = predictor.conditioned_network.prompts.count, data.shape[1:]
        size = shape if self.voxels is None else (self.voxels.count,)
        sums = torch.zeros((count, *size), dtype=torch.half, device=device)
        weights = torch.zeros(size, dtype=torch.half, device=device)
        patch = tuple(predictor.configuration_manager.patch_size)
        gaussian: Any = 1
        if predictor.use_gaussian:
            gaussian = compute_gaussian(patch, sigma_scale=1 / 8, value_scaling_factor=10, device=device)
        chosen = self._choose(windows)
        for number, window, selected in chosen:
            self._maps.begin_window(number, len(chosen))
            call = _WindowCall(predictor, self._maps, data, window, None if selected is None else selected[1])
            logits = predictor.predict_window(call)[0].to(device)
            if selected is None:
                logits *= gaussian
                sums[window] += logits
                weights[window[1:]] += gaussian
            else:
                _add_voxels(sums, weights, logits, gaussian, selected)
        torch.div(sums, weights, out=sums)
        if torch.any(torch.isinf(sums)):
            raise ModelError(
                "The network gave infinite logits. Predict without half precision or with another checkpoint; if that "
                "does not help, the training went wrong."
            )
        if self.voxels is None:
            return sums
        self.found = sums
        return sums.new_zeros(()).expand(count, *shape)

    def _choose(self, windows: Sequence[Window]) -> list[tuple[int, Window, Selected | None]]:
        """Choose the windows with voxels that are wanted: number, window, and the voxels in it (None: all)."""
        if self.voxels is None:
            return [(number, window, None) for number, window in enumerate(windows)]
        found = ((number, window, self.voxels.select(to_box(window[1:]))) for number, window in enumerate(windows))
        return [(number, window, selected) for number, window, selected in found if selected is not None]


def _add_voxels(
    sums: torch.Tensor,
    weights: torch.Tensor,
    logits: torch.Tensor,
    gaussian: Any,
    selected: Selected,
) -> None:
    """Add a window's logits (K, n) of some voxels to the sums (K, N), as nnU-Net adds whole windows."""
    rows = torch.from_numpy(selected[0]).to(sums.device)
    weight = gaussian
    if isinstance(gaussian, torch.Tensor):
        z, y, x = torch.from_numpy(selected[1]).to(gaussian.device)
        weight = gaussian[z, y, x]
    logits *= weight
    before = sums.index_select(1, rows)
    before += logits
    sums.index_copy_(1, rows, before)
    weights[rows] += weight


class _WindowCall:
    """Gives the logits of the bound prompts in one window, from its mirror image along some axes, brought back.

    Args:
        predictor: Its network is bound to prompts.
        maps: What was kept.
        data: Padded image, (C, D, H, W).
        window: The window in it, with an axis of channels first.
        at: Where in the window logits are wanted, (3, n); None: everywhere.
    """

    def __init__(
        self,
        predictor: Caller,
        maps: CallMaps,
        data: torch.Tensor,
        window: Window,
        at: NDArray[np.int64] | None,
    ) -> None:
        self._predictor, self._maps, self._data, self._window, self._at = predictor, maps, data, window, at
        self._shape = tuple(int(part.stop - part.start) for part in window[1:])
        self._box = to_box([slice(0, size) for size in self._shape]) if at is None else _enclose(at)

    def __call__(self, flips: Flips) -> torch.Tensor:
        """Return logits (1, K, D, H, W), or (1, K, n)."""
        maps, network, device = self._maps, self._predictor.conditioned_network, self._predictor.device
        maps.flips = flips
        box = flip_box(self._box, self._shape, flips)
        parts = list_parts(network)
        logits = []
        for part in parts:
            kept = maps.find(part.adapter, box)
            if kept is None:
                maps.calls_again += 1
                return self._call_network(flips)
            values, pooled = self._take(kept, flips).to(device), kept.pooled.to(device)
            logits.append(network.apply_to_maps(values, pooled, part.prompts, part.adapter))
        joined = join_parts(parts, logits)
        if self._at is not None:
            return joined.flatten(2)[..., : self._at.shape[1]]
        return joined.flip([axis + 2 for axis in flips]) if flips else joined

    def _take(self, kept: KeptMap, flips: Flips) -> torch.Tensor:
        """Return what was kept of the window, (1, F, D, H, W), or of the wanted voxels, (1, F, m, 1, 1), m >= n."""
        if self._at is None:
            return kept.maps
        at = np.stack([
            (size - 1 - own if axis in flips else own) - part.start
            for axis, (own, size, part) in enumerate(zip(self._at, self._shape, kept.box, strict=True))
        ])  # fmt: skip
        flat = np.ravel_multi_index(tuple(at), tuple(kept.maps.shape[2:]))
        flat = np.pad(flat, (0, -len(flat) % _COLUMNS), mode="edge")
        return kept.maps.flatten(2).index_select(2, torch.from_numpy(flat))[..., None, None]

    def _call_network(self, flips: Flips) -> torch.Tensor:
        x = torch.clone(self._data[self._window][None], memory_format=torch.contiguous_format)
        logits = call_mirrored(self._predictor.network, x.to(self._predictor.device), flips)
        if self._at is None:
            return logits
        flat = np.ravel_multi_index(tuple(self._at), self._shape)
        return logits.flatten(2).index_select(2, torch.from_numpy(flat).to(logits.device))


def list_parts(network: ConditionedUNet) -> tuple[AdapterPrompts, ...]:
    """Return the bound prompts by adapter; those that name none are the default adapter's."""
    prompts = network.prompts
    return (AdapterPrompts(network.default_adapter, (), prompts),) if prompts.adapters is None else prompts.parts


def call_mirrored(call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, flips: Flips) -> torch.Tensor:
    """Call a network on the mirror image of x, (1, C, D, H, W), along some axes, and bring its logits back."""
    if not flips:
        return call(x)
    places = [axis + 2 for axis in flips]
    return call(x.flip(places)).flip(places)


def _enclose(at: NDArray[np.int64]) -> Box:
    """Return the smallest box around voxels (3, n)."""
    return to_box([slice(int(own.min()), int(own.max()) + 1) for own in at])
