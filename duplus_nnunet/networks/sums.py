"""Computes the sums over voxels for Dice and cross-entropy of each target directly from a label map.

Label maps are not expanded to binary masks before, since one mask per target and scale would fill memory and worker
queues.
"""

from typing import Any

import torch
from torch.nn import functional

from duplus_nnunet.networks.acceleration import find_kernels

# Values per block of targets on an accelerator; a CPU processes one target at a time.
_DEVICE_BLOCK_VALUES = 1 << 26


def membership_table(regions: list[Any], device: torch.device) -> torch.Tensor:
    """Tabulate which label values belong to which target.

    Args:
        regions: K entries as in nnU-Net's label manager, each a label value or several.
        device: Device of the table.

    Returns:
        Boolean table, shape (K, largest label value + 2); the last column, for unknown labels, is False.
    """
    values = [[int(v) for v in region] if isinstance(region, (list, tuple)) else [int(region)] for region in regions]
    table = torch.zeros(len(values), max(max(v) for v in values) + 2, dtype=torch.bool, device=device)
    for row, members in enumerate(values):
        table[row, members] = True
    return table


def expand_target(labels: torch.Tensor, table: torch.Tensor, target: int) -> torch.Tensor:
    """Return the boolean mask of one target in a label map; unknown values belong to no target."""
    members = torch.nonzero(table[target]).flatten().to(labels.dtype)
    return labels == members[0] if len(members) == 1 else torch.isin(labels, members)


def _expand_block(labels: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Return the masks of k targets in a label map (V), float32 (k, V).

    On an accelerator, all targets are looked up at once, since reading table entries one by one would synchronise with
    the CPU.
    """
    if labels.device.type == "cpu":
        masks = [expand_target(labels, table, target).float() for target in range(len(table))]
        return masks[0].unsqueeze(0) if len(masks) == 1 else torch.stack(masks)
    unknown = table.shape[1] - 1
    known = torch.where((labels < 0) | (labels > unknown), unknown, labels).long()
    return table[:, known].float()


def _list_blocks(logits: torch.Tensor) -> list[tuple[int, slice]]:
    """List the blocks to process: the index of an image and a slice of targets."""
    batch, targets, voxels = logits.shape
    size = 1 if logits.device.type == "cpu" else max(1, _DEVICE_BLOCK_VALUES // voxels)
    return [(image, slice(first, first + size)) for image in range(batch) for first in range(0, targets, size)]


class TargetSums(torch.autograd.Function):
    """Sums over voxels for every image and target, computed block by block to save memory.

    forward(logits, labels, table, valid) takes logits (B, K, V), labels (B, V), the membership table (K, L) and an
    optional mask valid (B, V) of voxels that count; it returns four (B, K) float32 tensors: sum of p*y, sum of p, sum
    of y, sum of binary cross-entropy, where p is the sigmoid of the logits. No gradient reaches labels, table, valid.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, table: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Compute the sums; see the class."""
        kernels = find_kernels(logits.device)
        if kernels is not None:
            logits, labels, table = logits.contiguous(), labels.contiguous(), table.to(torch.uint8)
        ctx.save_for_backward(logits, labels, table, valid)
        if kernels is not None:
            return tuple(kernels.compute_sums(logits, labels, table, valid))
        sums = logits.new_zeros(4, *logits.shape[:2], dtype=torch.float32)
        # Autocast would compute the product in float16, where sums end at 65,504 voxels.
        with torch.autocast(logits.device.type, enabled=False):
            for b, block in _list_blocks(logits):
                x, y = logits[b, block].float(), _expand_block(labels[b], table[block])
                p, cross = torch.sigmoid(x), functional.binary_cross_entropy_with_logits(x, y, reduction="none")
                if valid is not None:
                    p, y, cross = p * valid[b], y * valid[b], cross * valid[b]
                sums[:, b, block] = torch.stack([torch.linalg.vecdot(p, y), p.sum(1), y.sum(1), cross.sum(1)])
        return sums[0], sums[1], sums[2], sums[3]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute the gradient of the logits, recomputing the sigmoid instead of storing it."""
        logits, labels, table, valid = ctx.saved_tensors
        overlap, prediction, _, cross = grads
        kernels = find_kernels(logits.device)
        if kernels is not None:
            steps = torch.stack([overlap, prediction, cross], dim=2).float()
            return kernels.compute_sums_backward(logits, labels, table, valid, steps), None, None, None
        out = torch.empty_like(logits)
        for b, block in _list_blocks(logits):
            p, y = torch.sigmoid(logits[b, block].float()), _expand_block(labels[b], table[block])
            slope = (p - p * p) * (y * overlap[b, block, None] + prediction[b, block, None])
            step = slope.add_((p - y).mul_(cross[b, block, None]))
            out[b, block] = step if valid is None else step * valid[b]
        return out, None, None, None
