"""Runs the GPU kernels in Triton's interpreter, which must be enabled before Triton is imported.

Prints the deviation of each result from that of the matrix products as JSON, relative to the largest value.
"""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from duplus_nnunet.networks import head, kernels
from duplus_nnunet.networks.sums import TargetSums, membership_table


def measure_deviation(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result.float() - expected.float()).abs().max() / expected.abs().max())


def compare_heads(features: int, dtype: torch.dtype) -> dict[str, float]:
    maps = torch.randn(2, features, 300).to(dtype)
    weights = torch.randn(2, 2, head.count_weights(features)) / features**0.5
    grad = torch.randn(2, 2, 300).to(dtype)
    gradients = kernels.compute_heads_backward(maps, weights, grad)
    expected = head._compute_heads_backward(maps.float(), weights, grad.float())
    logits = kernels.compute_heads(maps, weights)
    assert (logits.dtype, gradients[0].dtype, gradients[1].dtype) == (dtype, dtype, torch.float32)
    return {
        "logits": measure_deviation(logits, head._compute_heads(maps.float(), weights)),
        "maps' gradient": measure_deviation(gradients[0], expected[0]),
        "weights' gradient": measure_deviation(gradients[1], expected[1]),
    }


def compare_sums(masked: bool) -> dict[str, float]:
    logits = (10 * torch.randn(2, 3, 1500)).requires_grad_()
    # -1, 5 and 6 are in no target, as an ignore label.
    labels = torch.randint(-1, 7, (2, 1500), dtype=torch.int16)
    table = membership_table([1, (1, 2), 4], labels.device)
    valid = (labels != 5).float() if masked else None
    expected, steps = torch.stack(TargetSums.apply(logits, labels, table, valid)), torch.randn(2, 3, 3)
    (expected[[0, 1, 3]] * steps.movedim(2, 0)).sum().backward()
    inputs = (logits.detach(), labels, table.to(torch.uint8), valid)
    assert logits.grad is not None
    return {
        "sums": measure_deviation(kernels.compute_sums(*inputs), expected.detach()),
        "logits' gradient": measure_deviation(kernels.compute_sums_backward(*inputs, steps), logits.grad),
    }


torch.manual_seed(0)
deviations: dict[str, dict[str, float]] = {
    f"{features} features, {name}": compare_heads(features, dtype)
    for features, name, dtype in ((1, "float32", torch.float32), (3, "float32", torch.float32))
}
deviations["2 features, float16"] = compare_heads(2, torch.float16)
deviations |= {"all voxels": compare_sums(False), "valid voxels": compare_sums(True)}
json.dump(deviations, sys.stdout)
