"""Sums over voxels that Dice and cross-entropy need, a target at a time, straight from a label map.

Label maps stay label maps up to here: a boolean map a target and scale would fill memory and worker queues.
"""

from typing import Any

import torch
from torch.nn import functional


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


class TargetSums(torch.autograd.Function):
    """Sums over voxels for every image and target, computed a target at a time so that nothing is expanded.

    forward(logits, labels, table, valid) takes logits (B, K, V), labels (B, V), the membership table (K, L) and an
    optional mask valid (B, V) of voxels that count; it returns four (B, K) float32 tensors: sum of p*y, sum of p, sum
    of y, sum of binary cross-entropy, where p is the sigmoid of the logits. No gradient reaches labels, table, valid.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, table: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        """Compute the sums; see the class."""
        ctx.save_for_backward(logits, labels, table, valid)
        sums = logits.new_zeros(4, *logits.shape[:2], dtype=torch.float32)
        for b in range(logits.shape[0]):
            for k in range(logits.shape[1]):
                x, y = logits[b, k].float(), expand_target(labels[b], table, k).float()
                p, cross = torch.sigmoid(x), functional.binary_cross_entropy_with_logits(x, y, reduction="none")
                if valid is not None:
                    p, y, cross = p * valid[b], y * valid[b], cross * valid[b]
                sums[:, b, k] = torch.stack([torch.dot(p, y), p.sum(), y.sum(), cross.sum()])
        return sums[0], sums[1], sums[2], sums[3]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute the logits' gradient, recomputing the sigmoid instead of keeping it."""
        logits, labels, table, valid = ctx.saved_tensors
        overlap, prediction, _, cross = grads
        out = torch.empty_like(logits)
        for b in range(logits.shape[0]):
            for k in range(logits.shape[1]):
                p, y = torch.sigmoid(logits[b, k].float()), expand_target(labels[b], table, k).float()
                slope = (p - p * p) * (y * overlap[b, k] + prediction[b, k])
                step = slope.add_((p - y).mul_(cross[b, k]))
                out[b, k] = step if valid is None else step * valid[b]
        return out, None, None, None
