"""MLP_Prog: in come encoded EHR (N, P) and image inputs (N, M) of C modalities, out come a loss's outputs (N, T).

Both are joined and go through an MLP, as in the paper's figure. What is missing of a patient is shown to the network in
training as it will be at prediction: absent values of the EHR as the encoder gives them, an absent modality as zeros
and a mark.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from duplus_nnunet.settings import SurvivalSettings


@dataclass(frozen=True)
class Inputs:
    """What a network sees of N patients.

    Attributes:
        ehr: Encoded records, (N, P).
        images: Inputs of images, (N, M).
        there: Which modalities were imaged, bool (N, C).
    """

    ehr: torch.Tensor
    images: torch.Tensor
    there: torch.Tensor

    def take(self, rows: torch.Tensor) -> "Inputs":
        """Choose some patients by their rows."""
        return Inputs(self.ehr[rows], self.images[rows], self.there[rows])


class InputDropout(torch.nn.Module):
    """Makes parts of patients missing, by chance in training or as asked for.

    Args:
        absent: What the encoder gives of a record of which nothing is known, (P).
        columns: Place of the EHR column that each of its numbers is of, int64 (P).
        modalities: Place of the modality that each image input is of, int64 (M).
        settings: Shares of what is hidden in training.
    """

    absent: torch.Tensor
    columns: torch.Tensor
    modalities: torch.Tensor

    def __init__(
        self, absent: torch.Tensor, columns: torch.Tensor, modalities: torch.Tensor, settings: SurvivalSettings
    ) -> None:
        super().__init__()
        for name, value in (("absent", absent), ("columns", columns), ("modalities", modalities)):
            self.register_buffer(name, value, persistent=False)
        self._shares = (settings.column_dropout, settings.table_dropout, settings.modality_dropout)

    def forward(self, given: Inputs) -> Inputs:
        """Hide by chance, a patient at a time; in eval mode, nothing."""
        if not self.training:
            return self.hide_images(given, ~given.there)
        column, table, modality = self._shares
        count = len(given.ehr)
        width = int(self.columns.max()) + 1 if len(self.columns) else 0
        hidden = (torch.rand(count, width) < column) | (torch.rand(count, 1) < table)
        shown = self.hide_records(given, hidden)
        return self.hide_images(shown, ~given.there | (torch.rand(given.there.shape) < modality))

    def hide_records(self, given: Inputs, hidden: torch.Tensor) -> Inputs:
        """Hide EHR columns, bool (N, columns)."""
        ehr = torch.where(hidden[:, self.columns], self.absent, given.ehr)
        return Inputs(ehr, given.images, given.there)

    def hide_images(self, given: Inputs, hidden: torch.Tensor) -> Inputs:
        """Hide modalities, bool (N, C)."""
        images = torch.where(hidden[:, self.modalities], 0.0, given.images)
        return Inputs(given.ehr, images, given.there & ~hidden)


class PrognosisNetwork(torch.nn.Module):
    """Maps patients to a loss's outputs.

    Args:
        input_dropout: Makes parts of patients missing.
        base: Outputs to start from, the same for everybody, (T).
        modalities: C.
        settings: Widths and dropout.
    """

    def __init__(
        self, input_dropout: InputDropout, base: torch.Tensor, modalities: int, settings: SurvivalSettings
    ) -> None:
        super().__init__()
        self.settings = settings
        self.input_dropout = input_dropout
        records, images = len(input_dropout.columns), len(input_dropout.modalities) + modalities
        projected = settings.image_features if images else 0
        self.dropout = torch.nn.Dropout(settings.dropout)
        self.project = torch.nn.Linear(images, projected) if images else None
        self.hidden = torch.nn.Linear(records + projected, settings.hidden)
        # Before it has learned anything it foretells the same for everybody: what all patients together had.
        self.risk = torch.nn.Linear(settings.hidden, 1, bias=False)
        self.base = torch.nn.Parameter(base.clone())
        self.shape = torch.nn.Linear(settings.hidden, len(base), bias=False)
        torch.nn.init.zeros_(self.risk.weight)
        torch.nn.init.zeros_(self.shape.weight)

    def forward(self, given: Inputs) -> torch.Tensor:
        """Map patients to outputs (N, T)."""
        shown = self.input_dropout(given)
        parts = [self.dropout(shown.ehr)]
        if self.project is not None:
            seen = torch.cat([self.dropout(shown.images), 1.0 - shown.there.float()], 1)
            parts.append(functional.leaky_relu(self.project(seen), 0.01))
        hidden = functional.leaky_relu(self.hidden(torch.cat(parts, 1)), 0.01)
        outputs: torch.Tensor = self.base + self.risk(hidden) + self.shape(hidden)
        return outputs
