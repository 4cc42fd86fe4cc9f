"""Trains a network with early stopping: the weights with the lowest validation loss are restored."""

from collections.abc import Callable

import torch

_EPOCHS, _PATIENCE = 300, 40
_LEAST_GAIN = 1e-5


def train_with_early_stopping(
    network: torch.nn.Module,
    train_epoch: Callable[[], None],
    validation_loss: Callable[[], float],
    best: float = float("inf"),
) -> float:
    """Train until the validation loss has stopped falling, and restore the best weights.

    Args:
        network: The network to train; it is in eval mode at the end.
        train_epoch: Runs one epoch.
        validation_loss: Returns the loss of the validation patients; lower is better.
        best: Validation loss of the initial weights, which are kept if no epoch lowers it.

    Returns:
        The lowest validation loss.
    """
    best_weights, epochs_without_gain = _copy_weights(network), 0
    for _ in range(_EPOCHS):
        network.train()
        train_epoch()
        network.eval()
        with torch.no_grad():
            loss = validation_loss()
        if loss < best - _LEAST_GAIN:
            best, epochs_without_gain, best_weights = loss, 0, _copy_weights(network)
        else:
            epochs_without_gain += 1
            if epochs_without_gain >= _PATIENCE:
                break
    network.load_state_dict(best_weights)
    network.eval()
    return best


def _copy_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}
