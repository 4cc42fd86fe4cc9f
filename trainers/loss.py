"""The training loss: Dice and binary cross-entropy of each target, computed from logits and a label map."""

from typing import Any

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import nn
from torch.nn import functional

from duplus_nnunet.networks.sums import TargetSums, expand_target, membership_table
from duplus_nnunet.settings import LossSettings

# The weight of an image with n annotated targets is this power of n.
_POWERS = {"mean": 0.0, "sqrt": 0.5, "sum": 1.0}


class TargetLoss(nn.Module):
    """Sigmoid Dice + binary cross-entropy, averaged over the annotated targets of an image, then over images.

    A target that is annotated but absent has no Dice (nnU-Net's would be 0, with a gradient of 1e-9): it is excluded
    from the mean of Dice and trained by cross-entropy only. Without any annotated target, the loss is 0 with a gradient
    of 0. An image with twenty annotated targets has the same weight as one with a single target, and in Dice a patch
    that shows one of them has the same weight as one that shows all (`settings.dice_share`).

    Args:
        regions: One or several label values of each target, as in nnU-Net's label manager.
        batch_dice: Whether Dice is computed over the batch (and all ranks) instead of each image, as in the plans.
        ignore_label: Label value of voxels that do not count, or None.
        ddp: Whether sums for batch_dice are gathered from all ranks, which must then have the same targets selected.
        smooth: Added to numerator and denominator of Dice, as in nnU-Net.
        settings: How the losses of several targets are combined.
    """

    def __init__(
        self,
        regions: list[Any],
        batch_dice: bool,
        ignore_label: int | None = None,
        ddp: bool = False,
        smooth: float = 1e-5,
        settings: LossSettings | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or LossSettings()
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
        weights, scaled = self._weigh_targets(counted)
        voxels = truth.new_tensor(flat.shape[1]) if valid is None else valid.sum(1, keepdim=True).clamp_min(1)
        loss = _weigh(cross / voxels, scaled, weights)
        if self.settings.dice_share == "present":
            weights, scaled = self._weigh_targets(counted * (truth > 0))
        loss = loss - self._dice(
            torch.stack([overlap * counted, prediction * counted, truth * counted, scaled, weights])
        )
        if self.settings.separation:
            loss = loss + self.settings.separation * separate_targets(logits.flatten(2), flat, table, counted)
        return loss

    def _weigh_targets(self, counted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weights of each image's targets, (B, K): those of a mean over targets, and those of the loss."""
        count = counted.sum(1, keepdim=True).clamp_min(1)
        weights = counted / count
        return weights, weights * count ** _POWERS[self.settings.reduction]

    def _dice(self, sums: torch.Tensor) -> torch.Tensor:
        """Average Dice over the targets that are present; 0 with a gradient of 0 if there is none.

        Args:
            sums: Sums of p*y, of p and of y, the weights, and those of a mean over targets, (5, B, K).
        """
        if self.batch_dice:
            sums = sums.sum(1)
            if self.ddp:
                sums = AllGatherGrad.apply(sums).sum(0)
        overlap, prediction, truth, scaled, weights = sums
        dice = (2 * overlap + self.smooth) / (prediction + truth + self.smooth)
        present = truth > 0
        return _weigh(dice, scaled * present, weights * present)


def _weigh(values: torch.Tensor, weights: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum over the sum of `norm`; if that is 0, a 0 that is still connected to the values."""
    total = norm.sum()
    return (values * weights).sum() / torch.where(total > 0, total, 1)


def separate_targets(
    logits: torch.Tensor, labels: torch.Tensor, table: torch.Tensor, counted: torch.Tensor
) -> torch.Tensor:
    """Compute the cross-entropy of a softmax over the annotated targets at voxels that belong to exactly one of them.

    Each present target has the same weight, whatever its size, and so has each image with a present target. Voxels of
    overlapping targets, such as a tumour in its organ, do not count.

    Args:
        logits: Shape (B, K, V).
        labels: Label maps, (B, V).
        table: Which label values are which target, one row for each of the K targets.
        counted: Which target is annotated in which image, (B, K), 1 or 0.

    Returns:
        Scalar, 0 or more, lower is better. An image with fewer than two annotated targets, or without a voxel of
        exactly one, is left out; without any other image, a 0 with a gradient of 0.
    """
    terms = []
    for image, own in enumerate(counted > 0):
        chosen = torch.nonzero(own).flatten()
        if len(chosen) < 2:
            continue
        masks = torch.stack([expand_target(labels[image], table, int(target)) for target in chosen])
        voxels = torch.nonzero(masks.sum(0) == 1).flatten()
        if len(voxels):
            truth = masks[:, voxels].int().argmax(0)
            values = functional.cross_entropy(logits[image][chosen][:, voxels].float().t(), truth, reduction="none")
            sizes = torch.bincount(truth, minlength=len(chosen)).clamp_min(1)
            terms.append((values / sizes[truth]).sum() / len(torch.unique(truth)))
    return torch.stack(terms).mean() if terms else logits[..., 0].sum() * 0
