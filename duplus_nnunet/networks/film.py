"""FiLM at no cost: scale and shift are folded into the affine part of the instance norm they follow.

In come context embeddings (B, E), out come feature maps scaled and shifted a channel.
Source: Perez et al. 2018, arXiv 1709.07871.
"""

import torch
from torch import nn
from torch.nn import functional


class FiLMInstanceNorm(nn.InstanceNorm3d):
    """An affine InstanceNorm3d whose output is scaled by gamma and shifted by beta, an image each.

    gamma * (weight * x + bias) + beta is one affine map, so that conditioning needs no pass of its own.
    Parameters have the names and shapes of nn.InstanceNorm3d; without a modulation it computes the same.
    """

    gamma: torch.Tensor | None = None
    beta: torch.Tensor | None = None

    @classmethod
    def replace(cls, norm: nn.InstanceNorm3d) -> "FiLMInstanceNorm":
        """Make a conditioned norm that owns the parameters of `norm`."""
        made = cls(norm.num_features, eps=norm.eps, affine=True)
        made.weight, made.bias = norm.weight, norm.bias
        return made

    def modulate(self, gamma: torch.Tensor | None, beta: torch.Tensor | None) -> None:
        """Set scale and shift, shape (1, C) or (B, C), for the next call; None removes them."""
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


# Keeps the gradient of a vector of zeros finite.
_SMALL = 1e-3


def scale_to_norm(x: torch.Tensor, length: float) -> torch.Tensor:
    """Scale vectors (..., F) to one length; those near 0, as a patch of nothing but air makes them, to less.

    What a step of gradient descent changes of a layer's output grows with the square of its input's length. Hidden
    vectors of ten to fifty, as embeddings of text make them, let a conditioning run away within some hundred steps of
    nnU-Net's learning rate and momentum, as soon as contexts disagree.
    """
    mean = x.square().mean(-1, keepdim=True)
    scaled: torch.Tensor = x * (length / x.shape[-1] ** 0.5) * torch.rsqrt(mean + _SMALL)
    return scaled


class FiLMGenerator(nn.Module):
    """MLP_FiLM: from a context embedding to gamma and beta of every conditioned stage.

    Its hidden vector has length 1, so that a context's gamma and beta are learned as fast as nnU-Net's own ones.

    Args:
        embedding: E, length of a context embedding.
        channels: C of each conditioned stage.
        hidden: Width of the hidden layer.
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
        """Map contexts (B, E) to a pair (gamma, beta), each (B, C), a stage; at the start gamma is 1, beta 0."""
        hidden = scale_to_norm(self.nonlin(self.hidden(context)), 1.0)
        delta, shift = self.out(hidden).float().chunk(2, dim=1)
        return list(zip((1 + delta).split(self.channels, 1), shift.split(self.channels, 1), strict=True))


class NoFiLM(nn.Module):
    """Stands where FiLM would: every conditioned stage stays as nnU-Net has it, whatever the context.

    Args:
        stages: Number of conditioned stages.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        self.stages = stages

    def forward(self, context: torch.Tensor) -> list[tuple[None, None]]:
        """Return no modulation for each stage."""
        return [(None, None)] * self.stages
