"""The training loss: Dice and binary cross-entropy of each target, computed from logits and a label map."""

from typing import Any

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import nn

from duplus_nnunet.networks.sums import TargetSums, membership_table


class TargetLoss(nn.Module):
    """Sigmoid Dice + binary cross-entropy, averaged over the annotated targets of an image, then over images.

    A target that is annotated but absent has no Dice (nnU-Net's would be 0, with a gradient of 1e-9): it is excluded
    from the mean of Dice and trained by cross-entropy only. Without any annotated target, the loss is 0 with a gradient
    of 0. An image with twenty annotated targets has the same weight as one with a single target.

    Args:
        regions: One or several label values of each target, as in nnU-Net's label manager.
        batch_dice: Whether Dice is computed over the batch (and all ranks) instead of each image, as in the plans.
        ignore_label: Label value of voxels that do not count, or None.
        ddp: Whether sums for batch_dice are gathered from all ranks, which must then have the same targets selected.
        smooth: Added to numerator and denominator of Dice, as in nnU-Net.
    """

    def __init__(
        self,
        regions: list[Any],
        batch_dice: bool,
        ignore_label: int | None = None,
        ddp: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__()
        self.table: torch.Tensor
        self.register_buffer("table", membership_table(regions, torch.device("cpu")), persistent=False)
        self.batch_dice, self.ignore_label, self.ddp, self.smooth = batch_dice, ignore_label, ddp, smooth
        self._rows: torch.Tensor | None = None
        self._annotated: torch.Tensor | None = None

    def select(self, rows: torch.Tensor | None = None, annotated: torch.Tensor | None = None) -> None:
        """Select the targets that the channels of all following calls stand for.

        Args:
            rows: Indices of K targets among all, int64; None: all targets in their order.
            annotated: Boolean, shape (B, K): which targets are annotated in which image; None: all.
        """
        self._rows, self._annotated = rows, annotated

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits: Shape (B, K, D, H, W).
            labels: Label map, shape (B, 1, D, H, W).

        Returns:
            Scalar, lower is better; as in nnU-Net, Dice enters as -Dice, so the minimum is -1.
        """
        flat = labels.flatten(1)
        valid = None if self.ignore_label is None else (flat != self.ignore_label).float()
        table = (self.table if self._rows is None else self.table[self._rows.to(self.table.device)]).to(logits.device)
        overlap, prediction, truth, cross = TargetSums.apply(logits.flatten(2), flat, table, valid)
        counted = torch.ones_like(truth) if self._annotated is None else self._annotated.to(truth)
        weights = counted / counted.sum(1, keepdim=True).clamp_min(1)
        voxels = truth.new_tensor(flat.shape[1]) if valid is None else valid.sum(1, keepdim=True).clamp_min(1)
        cross = _weigh(cross / voxels, weights)
        return cross - self._dice(overlap * counted, prediction * counted, truth * counted, weights)

    def _dice(
        self, overlap: torch.Tensor, prediction: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Average Dice over the targets that are present; 0 with a gradient of 0 if there is none."""
        if self.batch_dice:
            sums = torch.stack([overlap, prediction, truth, weights]).sum(1)
            if self.ddp:
                sums = AllGatherGrad.apply(sums).sum(0)
            overlap, prediction, truth, weights = sums
        dice = (2 * overlap + self.smooth) / (prediction + truth + self.smooth)
        return _weigh(dice, weights * (truth > 0))


def _weigh(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean; if all weights are 0, a 0 that is still connected to the values."""
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)
