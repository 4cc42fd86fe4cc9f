"""Triton kernels of the dynamic head and of the sums of the loss, each a single pass over the voxels.

The layers of the head are 8 channels wide: as matrix products, they are limited by memory access between layers. Here,
the channels of a voxel stay in registers through all layers of a target, forwards and backwards. Everything is computed
in float32, whatever the dtype of the maps, and without atomic additions, so that results are reproducible. Inputs and
outputs are as in networks.head and networks.sums, which call these functions where Triton is available (it comes with
PyTorch on Linux, since torch.compile needs it).
"""

from typing import Any

import torch
import triton
import triton.language as tl

# Same as in networks.head, as a compile-time constant.
_SLOPE = tl.constexpr(0.01)
# Wider heads need more gradient sums than a GPU thread has registers.
MOST_FEATURES = 8
# Voxels per program: fewer where sums are kept per weight and voxel, more where computation is cheap.
_BLOCK, _SUMMED_BLOCK, _WIDE_BLOCK = 512, 128, 1024
# Number of programs that saturate a large GPU in reductions over voxels.
_PROGRAMS = 2048


@triton.jit
def _linear(weight, bias, x, F: tl.constexpr):
    """Compute the F outputs of a layer with F inputs; weight and bias are addresses, x is a tuple of vectors."""
    out = ()
    for row in tl.static_range(F):
        y = tl.load(bias + row) + tl.load(weight + row * F) * x[0]
        for column in tl.static_range(1, F):
            y += tl.load(weight + row * F + column) * x[column]
        out = out + (y,)
    return out


@triton.jit
def _linear_backward(weight, grad, F: tl.constexpr):
    """Compute the gradient with respect to the F inputs of a layer."""
    out = ()
    for column in tl.static_range(F):
        y = tl.load(weight + column) * grad[0]
        for row in tl.static_range(1, F):
            y += tl.load(weight + row * F + column) * grad[row]
        out = out + (y,)
    return out


@triton.jit
def _leaky_relu(x, F: tl.constexpr):
    """Apply LeakyReLU to F vectors."""
    out = ()
    for row in tl.static_range(F):
        out = out + (tl.where(x[row] > 0, x[row], x[row] * _SLOPE),)
    return out


@triton.jit
def _leaky_relu_backward(x, grad, F: tl.constexpr):
    """Multiply a gradient by the derivative of LeakyReLU, given its output x, which has the sign of its input."""
    out = ()
    for row in tl.static_range(F):
        out = out + (tl.where(x[row] > 0, grad[row], grad[row] * _SLOPE),)
    return out


@triton.jit
def _load_channels(address, voxels, inside, count, F: tl.constexpr):
    """Load F channels of a block of voxels."""
    out = ()
    for row in tl.static_range(F):
        out = out + (tl.load(address + row * count + voxels, mask=inside, other=0.0).to(tl.float32),)
    return out


@triton.jit
def _add_outer(sums, grad, x, F: tl.constexpr):
    """Add the products of F gradients and F inputs to F * F sums."""
    out = ()
    for row in tl.static_range(F):
        for column in tl.static_range(F):
            out = out + (sums[row * F + column] + grad[row] * x[column],)
    return out


@triton.jit
def _add_each(sums, x, F: tl.constexpr):
    """Add F vectors to F sums."""
    out = ()
    for row in tl.static_range(F):
        out = out + (sums[row] + x[row],)
    return out


@triton.jit
def _make_zeros(N: tl.constexpr, BLOCK: tl.constexpr):
    """Make N vectors of zeros."""
    out = ()
    for _ in tl.static_range(N):
        out = out + (tl.zeros([BLOCK], tl.float32),)
    return out


@triton.jit
def _store_sums(address, sums, N: tl.constexpr):
    """Sum up each of N vectors and store the sums consecutively."""
    for row in tl.static_range(N):
        tl.store(address + row, tl.sum(sums[row], axis=0))


@triton.jit
def _heads_kernel(maps, weights, out, targets, count, F: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Compute the logits of all targets for a block of voxels of an image."""
    image = tl.program_id(1).to(tl.int64)
    voxels = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = voxels < count
    z = _load_channels(maps + image * F * count, voxels, inside, count, F)
    for target in range(targets):
        w = weights + (image * targets + target) * P
        h1 = _leaky_relu(_linear(w, w + F * F, z, F), F)
        h2 = _leaky_relu(_linear(w + F * F + F, w + 2 * F * F + F, h1, F), F)
        last = w + 2 * F * F + 2 * F
        logit = tl.load(last + F) + tl.load(last) * h2[0]
        for row in tl.static_range(1, F):
            logit += tl.load(last + row) * h2[row]
        tl.store(out + (image * targets + target) * count + voxels, logit, mask=inside)


@triton.jit
def _maps_grad_kernel(maps, weights, grads, out, targets, count, F: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
    """Compute the gradient with respect to the maps, summed over targets, for a block of voxels of an image."""
    image = tl.program_id(1).to(tl.int64)
    voxels = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = voxels < count
    z = _load_channels(maps + image * F * count, voxels, inside, count, F)
    total = _make_zeros(F, BLOCK)
    for target in range(targets):
        w = weights + (image * targets + target) * P
        second, last = w + F * F + F, w + 2 * F * F + 2 * F
        h1 = _leaky_relu(_linear(w, w + F * F, z, F), F)
        h2 = _leaky_relu(_linear(second, second + F * F, h1, F), F)
        grad = tl.load(grads + (image * targets + target) * count + voxels, mask=inside, other=0.0).to(tl.float32)
        d2 = ()
        for row in tl.static_range(F):
            d2 = d2 + (tl.load(last + row) * grad,)
        d1 = _leaky_relu_backward(h1, _linear_backward(second, _leaky_relu_backward(h2, d2, F), F), F)
        total = _add_each(total, _linear_backward(w, d1, F), F)
    for row in tl.static_range(F):
        tl.store(out + (image * F + row) * count + voxels, total[row], mask=inside)


@triton.jit
def _weights_grad_kernel(
    maps, weights, grads, out, targets, count, F: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr
):
    """Compute the gradient with respect to the weights of a target over this program's share of an image's voxels."""
    target, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    w = weights + (image * targets + target) * P
    second, last = w + F * F + F, w + 2 * F * F + 2 * F
    g1, c1, g2, c2 = _make_zeros(F * F, BLOCK), _make_zeros(F, BLOCK), _make_zeros(F * F, BLOCK), _make_zeros(F, BLOCK)
    g3, c3 = _make_zeros(F, BLOCK), tl.zeros([BLOCK], tl.float32)
    for start in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        voxels = start + tl.arange(0, BLOCK).to(tl.int64)
        inside = voxels < count
        z = _load_channels(maps + image * F * count, voxels, inside, count, F)
        h1 = _leaky_relu(_linear(w, w + F * F, z, F), F)
        h2 = _leaky_relu(_linear(second, second + F * F, h1, F), F)
        grad = tl.load(grads + (image * targets + target) * count + voxels, mask=inside, other=0.0).to(tl.float32)
        d2, scaled = (), ()
        for row in tl.static_range(F):
            d2 = d2 + (tl.load(last + row) * grad,)
            scaled = scaled + (h2[row] * grad,)
        d2 = _leaky_relu_backward(h2, d2, F)
        d1 = _leaky_relu_backward(h1, _linear_backward(second, d2, F), F)
        g1, c1 = _add_outer(g1, d1, z, F), _add_each(c1, d1, F)
        g2, c2 = _add_outer(g2, d2, h1, F), _add_each(c2, d2, F)
        g3, c3 = _add_each(g3, scaled, F), c3 + grad
    address = out + ((image * targets + target) * tl.num_programs(0) + tl.program_id(0)) * P
    _store_sums(address, g1, F * F)
    _store_sums(address + F * F, c1, F)
    _store_sums(address + F * F + F, g2, F * F)
    _store_sums(address + 2 * F * F + F, c2, F)
    _store_sums(address + 2 * F * F + 2 * F, g3, F)
    tl.store(address + 2 * F * F + 3 * F, tl.sum(c3, axis=0))


@triton.jit
def _look_up(labels, table, voxels, inside, width):
    """Look up where a label map shows a target; the last column of the table stands for unknown labels."""
    value = tl.load(labels + voxels, mask=inside, other=0).to(tl.int32)
    value = tl.where((value < 0) | (value >= width), width - 1, value)
    return tl.load(table + value).to(tl.float32)


@triton.jit
def _sums_kernel(logits, labels, table, valid, out, targets, width, count, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    """Sum p*y, p, y and the cross-entropy over this program's share of an image's voxels, for one target."""
    target, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    zeros = tl.zeros([BLOCK], tl.float32)
    overlap, prediction, truth, cross = zeros, zeros, zeros, zeros
    for start in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        voxels = start + tl.arange(0, BLOCK).to(tl.int64)
        inside = voxels < count
        x = tl.load(logits + (image * targets + target) * count + voxels, mask=inside, other=0.0).to(tl.float32)
        y = _look_up(labels + image * count, table + target * width, voxels, inside, width)
        weight = inside.to(tl.float32)
        if MASKED:
            weight = tl.load(valid + image * count + voxels, mask=inside, other=0.0)
        small = tl.exp(-tl.abs(x))
        p = tl.where(x >= 0, 1.0, small) / (1.0 + small) * weight
        overlap += p * y
        prediction += p
        truth += y * weight
        cross += (tl.maximum(x, 0.0) - x * y + tl.log(1.0 + small)) * weight
    address = out + ((image * targets + target) * tl.num_programs(0) + tl.program_id(0)) * 4
    _store_sums(address, (overlap, prediction, truth, cross), 4)


@triton.jit
def _logits_grad_kernel(
    logits, labels, table, valid, steps, out, targets, width, count, MASKED: tl.constexpr, BLOCK: tl.constexpr
):
    """Compute the gradient of the logits for a block of voxels; steps are the gradients of sums 1, 2 and 4."""
    target, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    voxels = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = voxels < count
    row = image * targets + target
    x = tl.load(logits + row * count + voxels, mask=inside, other=0.0).to(tl.float32)
    y = _look_up(labels + image * count, table + target * width, voxels, inside, width)
    small = tl.exp(-tl.abs(x))
    p = tl.where(x >= 0, 1.0, small) / (1.0 + small)
    overlap, prediction, cross = (
        tl.load(steps + row * 3),
        tl.load(steps + row * 3 + 1),
        tl.load(steps + row * 3 + 2),
    )
    grad = (p - p * p) * (y * overlap + prediction) + (p - y) * cross
    if MASKED:
        grad *= tl.load(valid + image * count + voxels, mask=inside, other=0.0)
    tl.store(out + row * count + voxels, grad, mask=inside)


def _share(voxels: int, block: int, others: int) -> int:
    """Return the number of programs that share the voxels of each of `others` sums."""
    return max(1, min(triton.cdiv(voxels, block), triton.cdiv(_PROGRAMS, others)))


def compute_heads(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Compute logits (B, K, V), of the dtype of maps (B, F, V), from float32 weights (B, K, P); all contiguous."""
    batch, features, voxels = maps.shape
    out = maps.new_empty(batch, weights.shape[1], voxels)
    grid = (triton.cdiv(voxels, _BLOCK), batch)
    with torch.cuda.device_of(maps):
        _heads_kernel[grid](maps, weights, out, weights.shape[1], voxels, features, weights.shape[2], _BLOCK)
    return out


def compute_heads_backward(
    maps: torch.Tensor, weights: torch.Tensor, grad: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the gradients with respect to maps and weights from that of the logits; all contiguous."""
    (batch, features, voxels), (_, targets, size) = maps.shape, weights.shape
    maps_grad, sizes = torch.empty_like(maps), (targets, voxels, features, size)
    shares = _share(voxels, _SUMMED_BLOCK, batch * targets)
    parts = weights.new_empty(batch, targets, shares, size)
    with torch.cuda.device_of(maps):
        grid: Any = (triton.cdiv(voxels, _BLOCK), batch)
        _maps_grad_kernel[grid](maps, weights, grad, maps_grad, *sizes, _BLOCK)
        grid = (shares, targets, batch)
        _weights_grad_kernel[grid](maps, weights, grad, parts, *sizes, _SUMMED_BLOCK)
    return maps_grad, parts.sum(2)


def compute_sums(
    logits: torch.Tensor, labels: torch.Tensor, table: torch.Tensor, valid: torch.Tensor | None
) -> torch.Tensor:
    """Compute the four sums of networks.sums.TargetSums, (4, B, K); all contiguous, the table uint8."""
    (batch, targets, voxels), width = logits.shape, table.shape[1]
    shares = _share(voxels, _WIDE_BLOCK, batch * targets)
    parts = logits.new_empty(batch, targets, shares, 4, dtype=torch.float32)
    mask, masked = (labels, False) if valid is None else (valid, True)
    with torch.cuda.device_of(logits):
        _sums_kernel[(shares, targets, batch)](
            logits, labels, table, mask, parts, targets, width, voxels, masked, _WIDE_BLOCK
        )
    return parts.sum(2).movedim(2, 0)


def compute_sums_backward(
    logits: torch.Tensor, labels: torch.Tensor, table: torch.Tensor, valid: torch.Tensor | None, steps: torch.Tensor
) -> torch.Tensor:
    """Compute the gradient of the logits from those of the sums p*y, p and cross-entropy, steps (B, K, 3)."""
    (batch, targets, voxels), width = logits.shape, table.shape[1]
    out = torch.empty_like(logits)
    mask, masked = (labels, False) if valid is None else (valid, True)
    with torch.cuda.device_of(logits):
        _logits_grad_kernel[(triton.cdiv(voxels, _WIDE_BLOCK), targets, batch)](
            logits, labels, table, mask, steps, out, targets, width, voxels, masked, _WIDE_BLOCK
        )
    return out
