"""Implements the dynamic head: a small MLP per target, whose weights are generated from prompt and bottleneck.

The MLPs map a projected decoder map (B, F, V voxels) to logits (B, K, V). Voxels and targets are processed in blocks
that stay in the cache, or on a GPU in registers (networks.kernels), and the backward pass recomputes the hidden layers
instead of storing them: memory grows with K only by the logits.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from duplus_nnunet.networks.acceleration import find_kernels
from duplus_nnunet.networks.film import scale_to_norm

SLOPE = 0.01
# Norm of the last hidden vector of the generator; at 1, generated weights would be learned as fast as fixed ones.
HIDDEN_NORM = 4.0
# Targets per block, and values of one hidden layer per block: 2 MiB fit into the cache of a CPU core; an accelerator is
# better used with 256 MiB.
_BLOCK_TARGETS = 16
_BLOCK_VALUES = {"cpu": 1 << 19}
_DEVICE_BLOCK_VALUES = 1 << 26

Layers = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def count_weights(features: int) -> int:
    """Return P, the number of weights and biases of the head F -> F -> F -> 1 of one target."""
    return 2 * (features * features + features) + features + 1


def _split_layers(weights: torch.Tensor, features: int) -> Layers:
    """Split weights (K, P) into (K, F, F), (K, F, 1), (K, F, F), (K, F, 1), (K, 1, F), (K, 1, 1)."""
    square = features * features
    sizes = [square, features, square, features, features, 1]
    w1, b1, w2, b2, w3, b3 = torch.split(weights, sizes, dim=1)
    shape = (-1, features, features)
    return (
        w1.reshape(shape),
        b1.unsqueeze(-1),
        w2.reshape(shape),
        b2.unsqueeze(-1),
        w3.unsqueeze(1),
        b3.unsqueeze(-1),
    )


def _blocks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _compute_hidden(z: torch.Tensor, layers: Layers) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute both hidden layers (k, F, n) for a block z (F, n)."""
    w1, b1, w2, b2 = layers[:4]
    h1 = torch.baddbmm(b1, w1, z.expand(w1.shape[0], -1, -1))
    functional.leaky_relu_(h1, SLOPE)
    h2 = torch.baddbmm(b2, w2, h1)
    functional.leaky_relu_(h2, SLOPE)
    return h1, h2


def _block_size(device: torch.device, targets: int, features: int) -> int:
    """Return the number of voxels per block."""
    return max(1024, _BLOCK_VALUES.get(device.type, _DEVICE_BLOCK_VALUES) // (min(targets, _BLOCK_TARGETS) * features))


def _find_kernels(maps: torch.Tensor) -> Any:
    kernels = find_kernels(maps.device)
    return kernels if kernels is not None and maps.shape[1] <= kernels.MOST_FEATURES else None


@torch.library.custom_op("duplus::target_heads", mutates_args=())
def _target_heads(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    kernels = _find_kernels(maps)
    if kernels is not None:
        return kernels.compute_heads(maps, weights)  # type: ignore[no-any-return]
    with torch.autocast(maps.device.type, enabled=False):
        return _compute_heads(maps, weights)


def _compute_heads(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    batch, features, voxels = maps.shape
    out = maps.new_empty(batch, weights.shape[1], voxels)
    size = _block_size(maps.device, weights.shape[1], features)
    for b in range(batch):
        for targets in _blocks(weights.shape[1], _BLOCK_TARGETS):
            layers = _split_layers(weights[b, targets], features)
            for block in _blocks(voxels, size):
                _, h2 = _compute_hidden(maps[b, :, block].float(), layers)
                out[b, targets, block] = torch.baddbmm(layers[5], layers[4], h2).squeeze(1)
    return out


@_target_heads.register_fake
def _(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return maps.new_empty(maps.shape[0], weights.shape[1], maps.shape[2])


def _leaky_relu_backward(h: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Multiply a gradient by the derivative of LeakyReLU, given its output h, which has the sign of its input."""
    return torch.ops.aten.leaky_relu_backward(grad, h, SLOPE, True)  # type: ignore[no-any-return]


def _block_gradients(z: torch.Tensor, layers: Layers, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the gradients of a block with respect to z (F, n) and to the weights (k, P)."""
    h1, h2 = _compute_hidden(z, layers)
    grad = grad.unsqueeze(1)
    d2 = _leaky_relu_backward(h2, layers[4].transpose(1, 2) * grad)
    d1 = _leaky_relu_backward(h1, torch.bmm(layers[2].transpose(1, 2), d2))
    parts = (
        torch.matmul(d1, z.t()),
        d1.sum(2),
        torch.bmm(d2, h1.transpose(1, 2)),
        d2.sum(2),
        torch.bmm(grad, h2.transpose(1, 2)),
        grad.sum(2),
    )
    k, features, voxels = d1.shape
    d0 = torch.mm(layers[0].reshape(k * features, features).t(), d1.reshape(k * features, voxels))
    return d0, torch.cat([part.reshape(k, -1) for part in parts], dim=1)


@torch.library.custom_op("duplus::target_heads_backward", mutates_args=())
def _target_heads_backward(
    maps: torch.Tensor, weights: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    kernels = _find_kernels(maps)
    if kernels is not None:
        return kernels.compute_heads_backward(maps, weights, grad)  # type: ignore[no-any-return]
    with torch.autocast(maps.device.type, enabled=False):
        maps_grad, weights_grad = _compute_heads_backward(maps, weights, grad)
    return maps_grad.to(maps.dtype), weights_grad


def _compute_heads_backward(
    maps: torch.Tensor, weights: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    maps_grad, weights_grad = torch.zeros_like(maps, dtype=torch.float32), torch.zeros_like(weights)
    size = _block_size(maps.device, weights.shape[1], maps.shape[1])
    for b in range(maps.shape[0]):
        for targets in _blocks(weights.shape[1], _BLOCK_TARGETS):
            layers = _split_layers(weights[b, targets], maps.shape[1])
            for block in _blocks(maps.shape[2], size):
                d0, dw = _block_gradients(maps[b, :, block].float(), layers, grad[b, targets, block].float())
                maps_grad[b, :, block] += d0
                weights_grad[b, targets] += dw
    return maps_grad, weights_grad


@_target_heads_backward.register_fake
def _(maps: torch.Tensor, weights: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(maps), torch.empty_like(weights)


def _save_inputs(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    return torch.ops.duplus.target_heads_backward(*ctx.saved_tensors, grad.contiguous())


_target_heads.register_autograd(_backward, setup_context=_save_inputs)


def apply_heads(maps: torch.Tensor, weights: torch.Tensor, half: bool = False) -> torch.Tensor:
    """Apply the head of every target to a projected decoder map.

    Args:
        maps: Shape (B, F, D, H, W).
        weights: Shape (B, K, P), P = count_weights(F).
        half: Whether to return float16 logits, for prediction only; at most one block of targets is in float32 then.

    Returns:
        Logits, shape (B, K, D, H, W), of the dtype of `maps` or float16; computed in float32 also under autocast.

    Example:
        >>> maps, weights = torch.randn(2, 8, 5, 6, 7), torch.randn(2, 3, count_weights(8))  # two images, three targets
        >>> apply_heads(maps, weights).shape
        torch.Size([2, 3, 5, 6, 7])
    """
    flat, weights = maps.flatten(2).contiguous(), weights.contiguous().float()
    if half:
        logits = flat.new_empty(flat.shape[0], weights.shape[1], flat.shape[2], dtype=torch.float16)
        for targets in _blocks(weights.shape[1], _BLOCK_TARGETS):
            logits[:, targets] = torch.ops.duplus.target_heads(flat, weights[:, targets].contiguous())
    else:
        logits = torch.ops.duplus.target_heads(flat, weights)
    return logits.view(maps.shape[0], -1, *maps.shape[2:])


class HeadGenerator(nn.Module):
    """MLP_Pred: maps target embeddings and the pooled bottleneck to the weights of each target's head.

    Weights are a learned base, shared by all targets, plus a generated difference, so that training starts as fast as
    with a fixed head. The first layer acts on both inputs concatenated; it is computed as a sum, so that target
    embeddings are projected only once.

    Args:
        target: F, length of a target embedding.
        dense: Channels of the pooled bottleneck.
        hidden: Width of the hidden layers.
        features: Channels of the projected map.
    """

    def __init__(self, target: int, dense: int, hidden: int, features: int) -> None:
        super().__init__()
        self.from_target = nn.Linear(target, hidden)
        self.from_dense = nn.Linear(dense, hidden, bias=False)
        self.mix = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, count_weights(features))
        self.nonlin = nn.LeakyReLU(SLOPE)
        self.base = nn.Parameter(self._initialise_base(features))
        nn.init.normal_(self.out.weight, std=0.125 / HIDDEN_NORM)
        nn.init.zeros_(self.out.bias)

    @staticmethod
    def _initialise_base(features: int) -> torch.Tensor:
        """Initialise the base (P) as in He et al. 2015 (arXiv 1502.01852); biases are 0."""
        parts = []
        for rows in (features, features, 1):
            weight = torch.empty(rows, features)
            nn.init.kaiming_normal_(weight, a=SLOPE)
            parts += [weight.flatten(), torch.zeros(rows)]
        return torch.cat(parts)

    def forward(self, targets: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Map targets, (K, F) or (B, K, F), and the pooled bottleneck (B, C) to weights (B, K, P)."""
        return self.generate(self.project_targets(targets), dense)

    def project_targets(self, targets: torch.Tensor) -> torch.Tensor:
        """Project target embeddings to (K, hidden) or (B, K, hidden); the result is independent of the image."""
        with self._exact(targets.device):
            return self._linear(self.from_target, targets)

    def generate(self, projected: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Map projected target embeddings and the pooled bottleneck (B, C) to weights (B, K, P)."""
        with self._exact(dense.device):
            dense = scale_to_norm(dense, dense.shape[-1] ** 0.5)
            hidden = projected + self._linear(self.from_dense, dense).unsqueeze(1)
            hidden = scale_to_norm(self.nonlin(hidden), hidden.shape[-1] ** 0.5)
            hidden = scale_to_norm(self.nonlin(self._linear(self.mix, hidden)), HIDDEN_NORM)
            return (self.base.to(hidden.dtype) + self._linear(self.out, hidden)).to(self.base.dtype)

    def _is_exact(self, device: torch.device) -> bool:
        # The last bits of a float32 matrix product depend on its number of rows K; rounded float64 products do not, so
        # that the logits of a target do not depend on other requested targets. MPS does not support float64.
        return not self.training and device.type != "mps"

    def _exact(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, enabled=False) if self._is_exact(device) else nullcontext()

    def _linear(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        dtype = torch.float64 if self._is_exact(x.device) else self.base.dtype
        bias = None if layer.bias is None else layer.bias.to(dtype)
        return functional.linear(x.to(dtype), layer.weight.to(dtype), bias)
