"""Early stopping: in comes a network that learns, and stays what it was where those held were foretold best."""

from collections.abc import Callable

import torch

_EPOCHS, _PATIENCE = 300, 40
_LEAST_GAIN = 1e-5


def train_with_early_stopping(
    network: torch.nn.Module, learn: Callable[[], None], measure: Callable[[], float], best: float = float("inf")
) -> float:
    """Run epochs until the loss of those held has not fallen for a while, and go back to where it was least.

    Args:
        network: Whose weights change; in eval mode at the end.
        learn: Runs one epoch.
        measure: Returns the loss of patients that are not learned from, lower is better.
        best: Their loss with the network as it is; it stays so if no epoch makes it lower.

    Returns:
        The least loss.
    """
    kept, since = _copy(network), 0
    for _ in range(_EPOCHS):
        network.train()
        learn()
        network.eval()
        with torch.no_grad():
            found = measure()
        if found < best - _LEAST_GAIN:
            best, since, kept = found, 0, _copy(network)
        else:
            since += 1
            if since >= _PATIENCE:
                break
    network.load_state_dict(kept)
    network.eval()
    return best


def _copy(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}
