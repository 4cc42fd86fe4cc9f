"""Sums over voxels that Dice and cross-entropy need, a target at a time, straight from a label map.

Label maps stay label maps up to here: a boolean map a target and scale would fill memory and worker queues.
"""

from typing import Any

import torch
from torch.nn import functional

from duplus_nnunet.networks.acceleration import find_kernels

# Values of one target block: a CPU walks one target after the other, an accelerator is to be kept busy.
_VALUES_DEVICE = 1 << 26


def membership_table(regions: list[Any], device: torch.device) -> torch.Tensor:
    """Tabulate which label values belong to which target.

    Args:
        regions: K entries as nnU-Net's label manager has them: a label value or several.
        device: Where the table is made.

    Returns:
        Boolean table, shape (K, largest label value + 2); the last column, of no label, is False.
    """
    values = [[int(v) for v in region] if isinstance(region, (list, tuple)) else [int(region)] for region in regions]
    table = torch.zeros(len(values), max(max(v) for v in values) + 2, dtype=torch.bool, device=device)
    for row, members in enumerate(values):
        table[row, members] = True
    return table


def expand_target(labels: torch.Tensor, table: torch.Tensor, target: int) -> torch.Tensor:
    """Return where a label map shows one target, boolean, of the label map's shape; unknown values show none."""
    members = torch.nonzero(table[target]).flatten().to(labels.dtype)
    return labels == members[0] if len(members) == 1 else torch.isin(labels, members)


def _expand_block(labels: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Return where a label map (V) shows which of k targets, float32 (k, V).

    An accelerator looks all up at once, since reading a table's entries one by one would make it wait for the CPU.
    """
    if labels.device.type == "cpu":
        found = [expand_target(labels, table, target).float() for target in range(len(table))]
        return found[0].unsqueeze(0) if len(found) == 1 else torch.stack(found)
    none = table.shape[1] - 1
    known = torch.where((labels < 0) | (labels > none), none, labels).long()
    return table[:, known].float()


def _list_blocks(logits: torch.Tensor) -> list[tuple[int, slice]]:
    """List which targets of which image are worked on at a time."""
    batch, targets, voxels = logits.shape
    size = 1 if logits.device.type == "cpu" else max(1, _VALUES_DEVICE // voxels)
    return [(image, slice(first, first + size)) for image in range(batch) for first in range(0, targets, size)]


class TargetSums(torch.autograd.Function):
    """Sums over voxels for every image and target, computed a block at a time so that not all is expanded.

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
        for b, some in _list_blocks(logits):
            x, y = logits[b, some].float(), _expand_block(labels[b], table[some])
            p, cross = torch.sigmoid(x), functional.binary_cross_entropy_with_logits(x, y, reduction="none")
            if valid is not None:
                p, y, cross = p * valid[b], y * valid[b], cross * valid[b]
            sums[:, b, some] = torch.stack([torch.linalg.vecdot(p, y), p.sum(1), y.sum(1), cross.sum(1)])
        return sums[0], sums[1], sums[2], sums[3]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute the logits' gradient, recomputing the sigmoid instead of keeping it."""
        logits, labels, table, valid = ctx.saved_tensors
        overlap, prediction, _, cross = grads
        kernels = find_kernels(logits.device)
        if kernels is not None:
            steps = torch.stack([overlap, prediction, cross], dim=2).float()
            return kernels.compute_sums_backward(logits, labels, table, valid, steps), None, None, None
        out = torch.empty_like(logits)
        for b, some in _list_blocks(logits):
            p, y = torch.sigmoid(logits[b, some].float()), _expand_block(labels[b], table[some])
            slope = (p - p * p) * (y * overlap[b, some, None] + prediction[b, some, None])
            step = slope.add_((p - y).mul_(cross[b, some, None]))
            out[b, some] = step if valid is None else step * valid[b]
        return out, None, None, None
