"""Defines MLP_Prog: it maps encoded records (N, P) and image inputs (N, M) of C modalities to a loss's outputs (N, T).

Both are joined and passed through an MLP, as in the paper's figure. Missing values are presented in training as at
prediction: values of records as the encoder encodes them, modalities as zeros with a missing indicator.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from duplus_nnunet.settings import SurvivalSettings


@dataclass(frozen=True)
class Inputs:
    """Network inputs of N patients.

    Attributes:
        ehr: Encoded records, (N, P).
        images: Image inputs, (N, M).
        there: Whether each modality is present, bool (N, C).
    """

    ehr: torch.Tensor
    images: torch.Tensor
    there: torch.Tensor

    def take(self, rows: torch.Tensor) -> "Inputs":
        """Select patients by their rows."""
        return Inputs(self.ehr[rows], self.images[rows], self.there[rows])


class InputDropout(torch.nn.Module):
    """Presents parts of the inputs as missing: at random in training (modality dropout), or on request.

    Args:
        absent: Encoding of a record whose values are all missing, (P).
        columns: Index of the column of the record of each encoded number, int64 (P).
        modalities: Index of the modality of each image input, int64 (M).
        settings: Dropout probabilities of columns, of whole records and of modalities.
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
        self._probabilities = (settings.column_dropout, settings.table_dropout, settings.modality_dropout)

    def forward(self, inputs: Inputs) -> Inputs:
        """Hide parts at random, independently for each patient; in eval mode, hide nothing."""
        if not self.training:
            return self.hide_images(inputs, ~inputs.there)
        column, table, modality = self._probabilities
        count = len(inputs.ehr)
        width = int(self.columns.max()) + 1 if len(self.columns) else 0
        hidden = (torch.rand(count, width) < column) | (torch.rand(count, 1) < table)
        shown = self.hide_records(inputs, hidden)
        return self.hide_images(shown, ~inputs.there | (torch.rand(inputs.there.shape) < modality))

    def hide_records(self, inputs: Inputs, hidden: torch.Tensor) -> Inputs:
        """Present columns of records, marked in bool (N, columns), as missing."""
        ehr = torch.where(hidden[:, self.columns], self.absent, inputs.ehr)
        return Inputs(ehr, inputs.images, inputs.there)

    def hide_images(self, inputs: Inputs, hidden: torch.Tensor) -> Inputs:
        """Present modalities, marked in bool (N, C), as missing."""
        images = torch.where(hidden[:, self.modalities], 0.0, inputs.images)
        return Inputs(inputs.ehr, images, inputs.there & ~hidden)


class PrognosisNetwork(torch.nn.Module):
    """Maps the inputs of patients to a loss's outputs.

    Args:
        input_dropout: Presents parts of the inputs as missing in training.
        base: Initial outputs, the same for all patients, (T).
        modalities: C.
        settings: Layer widths and dropout.
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
        # With zero weights, the initial prediction of every patient is `base`.
        self.risk = torch.nn.Linear(settings.hidden, 1, bias=False)
        self.base = torch.nn.Parameter(base.clone())
        self.shape = torch.nn.Linear(settings.hidden, len(base), bias=False)
        torch.nn.init.zeros_(self.risk.weight)
        torch.nn.init.zeros_(self.shape.weight)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        """Map inputs of N patients to outputs (N, T)."""
        shown = self.input_dropout(inputs)
        parts = [self.dropout(shown.ehr)]
        if self.project is not None:
            images = torch.cat([self.dropout(shown.images), 1.0 - shown.there.float()], 1)
            parts.append(functional.leaky_relu(self.project(images), 0.01))
        hidden = functional.leaky_relu(self.hidden(torch.cat(parts, 1)), 0.01)
        outputs: torch.Tensor = self.base + self.risk(hidden) + self.shape(hidden)
        return outputs
