"""Trains the networks of a prognosis model, each with early stopping on another part of the training patients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.models.early_stopping import train_with_early_stopping
from duplus_nnunet.survival.models.image_inputs import ImageCode
from duplus_nnunet.survival.models.network import InputDropout, Inputs, PrognosisNetwork
from duplus_nnunet.survival.models.survival_loss import LossTargets, SurvivalLoss
from duplus_nnunet.survival.models.threads import use_one_thread
from duplus_nnunet.survival.records.encoding import RecordEncoder
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.table import SEEN, Record

_BATCH, _INNER_FOLDS = 128, 5
_LEARNING_RATE, _WEIGHT_DECAY = 1e-2, 1e-2


@dataclass(frozen=True)
class EnsembleMember:
    """One network of an ensemble.

    Attributes:
        network: In eval mode.
        loss: Converts the outputs to risk and survival.
    """

    network: PrognosisNetwork
    loss: SurvivalLoss


@dataclass(frozen=True)
class _Split:
    """Rows of the patients used for training and of those used for early stopping, int64."""

    train: torch.Tensor
    validation: torch.Tensor


def make_network(
    encoder: RecordEncoder, code: ImageCode | None, base: torch.Tensor, settings: SurvivalSettings
) -> PrognosisNetwork:
    """Build a network in double precision whose initial outputs (T) are the same for all patients."""
    absent, columns = torch.from_numpy(encoder.encode_empty_record()), torch.from_numpy(encoder.list_column_indices())
    owners = torch.zeros(0, dtype=torch.int64) if code is None else code.owners
    modalities = 0 if code is None else len(code.modalities)
    return PrognosisNetwork(InputDropout(absent, columns, owners, settings), base, modalities, settings).double()


@use_one_thread()
def train_members(
    records: Sequence[Record],
    inputs: Inputs,
    loss: SurvivalLoss,
    make: Callable[[torch.Tensor], PrognosisNetwork],
    seed: int,
) -> tuple[tuple[EnsembleMember, ...], list[str]]:
    """Train all networks.

    Args:
        records: Records of N training patients.
        inputs: Network inputs of the same patients.
        loss: The loss to minimise.
        make: Builds a network from its initial outputs.
        seed: Seed of inner folds, weights and dropout.

    Returns:
        The networks, and notes for the reader.
    """
    outcome = read_outcome(records)
    targets = loss.make_targets(outcome)
    events = sum(record.event == SEEN for record in records)
    folds = make_folds(records, max(2, min(_INNER_FOLDS, events)), seed)
    members, gains = [], []
    for number in range(make(loss.initial_outputs(targets)).settings.networks):
        fold = folds[number % len(folds)]
        split = _Split(torch.tensor(fold.train), torch.tensor(fold.test))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + number)
            network = make(loss.initial_outputs(targets.take(split.train)))
            _train(network, inputs, targets, loss, split)
        with torch.no_grad():
            members.append(EnsembleMember(network, loss.fit_baseline(network(inputs), outcome)))
            gains.append(_measure_image_gain(network, inputs, targets, loss, split))
    return tuple(members), _note_image_gains(gains, inputs)


def _train(network: PrognosisNetwork, inputs: Inputs, targets: LossTargets, loss: SurvivalLoss, split: _Split) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    size = len(split.train) if loss.needs_full_batch else _BATCH

    def train_epoch() -> None:
        for rows in torch.split(split.train[torch.randperm(len(split.train))], size):
            optimizer.zero_grad()
            batch_loss = loss.compute(network(inputs.take(rows)), targets.take(rows))
            batch_loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def validation_loss() -> float:
        return float(loss.compute_held_out(network(inputs), targets, split.validation))

    network.eval()
    with torch.no_grad():
        initial_loss = validation_loss()
    train_with_early_stopping(network, train_epoch, validation_loss, initial_loss)


def _measure_image_gain(
    network: PrognosisNetwork, inputs: Inputs, targets: LossTargets, loss: SurvivalLoss, split: _Split
) -> float:
    """Return by how much images lower the validation loss."""
    without_images = network.input_dropout.hide_images(inputs, torch.ones_like(inputs.there))
    before, after = (
        float(loss.compute_held_out(network(shown), targets, split.validation)) for shown in (without_images, inputs)
    )
    return before - after


def _note_image_gains(gains: Sequence[float], inputs: Inputs) -> list[str]:
    if inputs.there.shape[1] == 0:
        return []
    better = sum(gain > 0 for gain in gains)
    if np.mean(gains) > 0 and 2 * better > len(gains):
        return []
    return [
        "Images add little or nothing to the prediction: they lower the validation loss in at most half of the "
        "networks, or not on average."
    ]
