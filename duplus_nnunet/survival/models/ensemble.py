"""Trains the networks of a prognosis model: each learns from most training patients, and stops by the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.models.early_stopping import train_with_early_stopping
from duplus_nnunet.survival.models.image_inputs import ImageCode
from duplus_nnunet.survival.models.network import InputDropout, Inputs, PrognosisNetwork
from duplus_nnunet.survival.models.survival_loss import LossTargets, SurvivalLoss
from duplus_nnunet.survival.records.encoding import RecordEncoder
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.table import SEEN, Record

_BATCH, _INNER = 128, 5
_LEARNING_RATE, _WEIGHT_DECAY = 1e-2, 1e-2


@dataclass(frozen=True)
class EnsembleMember:
    """One network of an ensemble.

    Attributes:
        network: In eval mode.
        loss: Says what its outputs mean.
    """

    network: PrognosisNetwork
    loss: SurvivalLoss


@dataclass(frozen=True)
class _Split:
    """Who is learned from, and who says when to stop; rows, int64."""

    learn: torch.Tensor
    held: torch.Tensor


def make_network(
    encoder: RecordEncoder, code: ImageCode | None, base: torch.Tensor, settings: SurvivalSettings
) -> PrognosisNetwork:
    """Build a network of double precision that starts from some outputs (T), the same for everybody."""
    absent, columns = torch.from_numpy(encoder.encode_empty_record()), torch.from_numpy(encoder.list_column_indices())
    owners = torch.zeros(0, dtype=torch.int64) if code is None else code.owners
    modalities = 0 if code is None else len(code.modalities)
    return PrognosisNetwork(InputDropout(absent, columns, owners, settings), base, modalities, settings).double()


def train_members(
    records: Sequence[Record],
    given: Inputs,
    loss: SurvivalLoss,
    make: Callable[[torch.Tensor], PrognosisNetwork],
    seed: int,
) -> tuple[tuple[EnsembleMember, ...], list[str]]:
    """Train all networks.

    Args:
        records: N training patients.
        given: What networks see of them.
        loss: To be made less.
        make: Builds a network that starts from some outputs.
        seed: Of folds, weights and dropout.

    Returns:
        The networks, and what a reader has to know.
    """
    outcome = read_outcome(records)
    targets = loss.make_targets(outcome)
    events = sum(record.event == SEEN for record in records)
    folds = make_folds(records, max(2, min(_INNER, events)), seed)
    members, gains = [], []
    for number in range(make(loss.initial_outputs(targets)).settings.networks):
        fold = folds[number % len(folds)]
        part = _Split(torch.tensor(fold.train), torch.tensor(fold.test))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + number)
            network = make(loss.initial_outputs(targets.take(part.learn)))
            _train(network, given, targets, loss, part)
        with torch.no_grad():
            members.append(EnsembleMember(network, loss.fit_baseline(network(given), outcome)))
            gains.append(_measure_image_gain(network, given, targets, loss, part))
    return tuple(members), _note_image_gains(gains, given)


def _train(network: PrognosisNetwork, given: Inputs, targets: LossTargets, loss: SurvivalLoss, part: _Split) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    size = len(part.learn) if loss.needs_full_batch else _BATCH

    def learn_once() -> None:
        for rows in torch.split(part.learn[torch.randperm(len(part.learn))], size):
            optimizer.zero_grad()
            found = loss.compute(network(given.take(rows)), targets.take(rows))
            found.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def measure() -> float:
        return float(loss.compute_held_out(network(given), targets, part.held))

    network.eval()
    with torch.no_grad():
        before = measure()
    train_with_early_stopping(network, learn_once, measure, before)


def _measure_image_gain(
    network: PrognosisNetwork, given: Inputs, targets: LossTargets, loss: SurvivalLoss, part: _Split
) -> float:
    """Return by how much images lower the loss of those held."""
    blind = network.input_dropout.hide_images(given, torch.ones_like(given.there))
    with_images, without = (float(loss.compute_held_out(network(one), targets, part.held)) for one in (given, blind))
    return without - with_images


def _note_image_gains(gains: Sequence[float], given: Inputs) -> list[str]:
    if given.there.shape[1] == 0:
        return []
    better = sum(gain > 0 for gain in gains)
    if np.mean(gains) > 0 and 2 * better > len(gains):
        return []
    return [
        "The image carries little or nothing: it did not lower the loss of inner held-out training patients, or "
        "in half of the networks at most."
    ]
