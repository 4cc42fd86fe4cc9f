"""Dice and binary cross-entropy a target: in come logits and a label map, out comes one number to descend."""

from typing import Any

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import nn

from duplus_nnunet.networks.sums import TargetSums, membership_table


class TargetLoss(nn.Module):
    """Sigmoid Dice + binary cross-entropy, averaged over the targets that are annotated.

    A target that is annotated but absent has no Dice (nnU-Net's would be 0 there, with a gradient of 1e-9): it leaves
    the Dice mean and is taught by cross-entropy. Without any annotated target the loss is a connected zero.

    Args:
        regions: K entries of nnU-Net's label manager, a label value or several.
        batch_dice: Dice over the batch (and all ranks) instead of an image each, as the plans say.
        ignore_label: Label value of voxels that do not count, or None.
        ddp: Whether sums for batch_dice are gathered from all ranks.
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

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, annotated: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the loss.

        Args:
            logits: Shape (B, K, D, H, W).
            labels: Label map, shape (B, 1, D, H, W).
            annotated: Boolean, shape (B, K): which targets were annotated in which image; None is all.

        Returns:
            Scalar; 1 - Dice is written -Dice as in nnU-Net, so the least value is -1.
        """
        flat = labels.flatten(1)
        valid = None if self.ignore_label is None else (flat != self.ignore_label).float()
        table = self.table.to(logits.device)
        overlap, prediction, truth, cross = TargetSums.apply(logits.flatten(2), flat, table, valid)
        counted = torch.ones_like(truth, dtype=torch.bool) if annotated is None else annotated.to(truth.device)
        voxels = truth.new_tensor(flat.shape[1]) if valid is None else valid.sum(1, keepdim=True).clamp_min(1)
        cross = _mean_where(cross / voxels, counted)
        return cross - self._dice(overlap * counted, prediction * counted, truth * counted)

    def _dice(self, overlap: torch.Tensor, prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Average Dice over the targets present; 0, connected, where none is."""
        if self.batch_dice:
            sums = torch.stack([overlap, prediction, truth]).sum(1)
            if self.ddp:
                sums = AllGatherGrad.apply(sums).sum(0)
            overlap, prediction, truth = sums
        dice = (2 * overlap + self.smooth) / (prediction + truth + self.smooth)
        return _mean_where(dice, truth > 0)


def _mean_where(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Average values where chosen; a zero that keeps its gradient path where none is."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)
