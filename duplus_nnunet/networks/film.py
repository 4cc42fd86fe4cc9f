"""Implements FiLM: channel-wise scale and shift, merged into the affine parameters of the preceding instance norm.

Source: Perez et al. 2018, arXiv 1709.07871.
"""

import torch
from torch import nn
from torch.nn import functional


class FiLMInstanceNorm(nn.InstanceNorm3d):
    """An affine InstanceNorm3d whose output is scaled by gamma and shifted by beta, separately for each image.

    gamma * (weight * x + bias) + beta is a single affine map, so that FiLM adds no pass over the feature map.
    Parameters have the names and shapes of nn.InstanceNorm3d; without modulation, the output is the same.

    Example:
        >>> norm = FiLMInstanceNorm(4, affine=True)
        >>> x = torch.randn(2, 4, 3, 3, 3)
        >>> norm.modulate(gamma=2 * torch.ones(1, 4), beta=torch.ones(1, 4))
        >>> torch.allclose(norm(x), 2 * torch.nn.functional.instance_norm(x) + 1, atol=1e-5)
        True
    """

    gamma: torch.Tensor | None = None
    beta: torch.Tensor | None = None

    @classmethod
    def from_norm(cls, norm: nn.InstanceNorm3d) -> "FiLMInstanceNorm":
        """Make a conditioned norm that shares the parameters of `norm`."""
        conditioned = cls(norm.num_features, eps=norm.eps, affine=True)
        conditioned.weight, conditioned.bias = norm.weight, norm.bias
        return conditioned

    def modulate(self, gamma: torch.Tensor | None, beta: torch.Tensor | None) -> None:
        """Set scale and shift, shape (1, C) or (B, C), for the following calls; None removes them."""
        self.gamma, self.beta = gamma, beta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x (B, C, D, H, W)."""
        if self.gamma is None or self.beta is None:
            return super().forward(x)
        batch, channels = x.shape[:2]
        weight = (self.weight * self.gamma).expand(batch, -1).reshape(-1)
        bias = (self.bias * self.gamma + self.beta).expand(batch, -1).reshape(-1)
        merged = x.reshape(1, batch * channels, *x.shape[2:])
        normed = functional.batch_norm(merged, None, None, weight, bias, True, 0.0, self.eps)
        return normed.view(x.shape)


# Keeps the gradient of a zero vector finite.
_EPSILON = 1e-3


def scale_to_norm(x: torch.Tensor, norm: float) -> torch.Tensor:
    """Scale vectors (..., F) to a Euclidean norm; vectors near 0, such as those of a patch of air only, stay smaller.

    In gradient descent, the change of a layer's output grows with the squared norm of its input. With text embeddings,
    hidden vectors have norms of ten to fifty, and with nnU-Net's learning rate and momentum the conditioning diverges
    within some hundred steps if gradients of different contexts disagree.
    """
    mean = x.square().mean(-1, keepdim=True)
    scaled: torch.Tensor = x * (norm / x.shape[-1] ** 0.5) * torch.rsqrt(mean + _EPSILON)
    return scaled


class FiLMGenerator(nn.Module):
    """MLP_FiLM: maps a context embedding to gamma and beta of every conditioned stage.

    The hidden vector has norm 1, so that gamma and beta of a context are learned as fast as nnU-Net's own parameters.

    Args:
        embedding: E, length of a context embedding.
        channels: Number of channels C of each conditioned stage.
        hidden: Width of the hidden layer.

    Example:
        >>> generator = FiLMGenerator(embedding=384, channels=[32, 64], hidden=128)
        >>> [(tuple(gamma.shape), tuple(beta.shape)) for gamma, beta in generator(torch.randn(2, 384))]
        [((2, 32), (2, 32)), ((2, 64), (2, 64))]
    """

    def __init__(self, embedding: int, channels: list[int], hidden: int) -> None:
        super().__init__()
        self.channels = list(channels)
        self.hidden = nn.Linear(embedding, hidden)
        self.nonlin = nn.LeakyReLU()
        self.out = nn.Linear(hidden, 2 * sum(channels))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, context: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Map contexts (B, E) to a pair (gamma, beta), each (B, C), per stage; initially gamma is 1 and beta 0."""
        hidden = scale_to_norm(self.nonlin(self.hidden(context)), 1.0)
        delta, shift = self.out(hidden).float().chunk(2, dim=1)
        return list(zip((1 + delta).split(self.channels, 1), shift.split(self.channels, 1), strict=True))


class NoFiLM(nn.Module):
    """Replaces FiLMGenerator in ablations: the context does not change any stage.

    Args:
        stages: Number of conditioned stages.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.stages = stages

    def forward(self, context: torch.Tensor) -> list[tuple[None, None]]:
        """Return (None, None), no modulation, for each stage."""
        return [(None, None)] * self.stages
