"""GPU kernels give the same results as matrix products."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from duplus_nnunet.networks import acceleration, head
from duplus_nnunet.networks.sums import TargetSums, membership_table

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is installed with PyTorch on Linux alone"
)
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU; Triton's interpreter stands in for it in other tests"
)


@needs_triton
def test_interpreted_kernels_equal_the_matrix_products() -> None:
    script = Path(__file__).with_name("kernel_calls.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    if "only 0-dimensional arrays can be converted" in done.stderr and "interpreter.py" in done.stderr:
        pytest.skip("this Triton's interpreter does not run with this numpy: Triton 3.8 or newer, or numpy below 2.4")
    assert done.returncode == 0, done.stderr
    for name, values in json.loads(done.stdout).items():
        allowed = 1e-3 if "float16" in name else 1e-5
        assert all(value <= allowed for value in values.values()), (name, values)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("targets", [1, 20])
def test_heads_on_a_gpu_equal_those_on_a_cpu(targets: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 8, 9, 10, 11).to(dtype)
    weights, grad = torch.randn(2, targets, head.count_weights(8)) / 3, torch.randn(2, targets, 9, 10, 11).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        x = maps.to(device, torch.float32 if device == "cpu" else dtype, copy=True).requires_grad_()
        w = weights.to(device, copy=True).requires_grad_()
        with torch.autocast("cuda", enabled=device == "cuda" and dtype == torch.float16):
            logits = head.apply_heads(x, w)
        logits.backward(grad.to(device, logits.dtype))
        results.append([value.detach().cpu().float() for value in (logits, x.grad, w.grad)])  # type: ignore[union-attr]
    allowed = 1e-3 if dtype == torch.float16 else 1e-5
    for expected, result in zip(*results, strict=True):
        assert float((result - expected).abs().max() / expected.abs().max()) <= allowed


@needs_gpu
@pytest.mark.parametrize("masked", [False, True])
def test_sums_on_a_gpu_equal_those_on_a_cpu(masked: bool) -> None:
    torch.manual_seed(0)
    labels = torch.randint(-1, 7, (2, 5000), dtype=torch.int16)
    values, regions = 10 * torch.randn(2, 3, 5000), [1, (1, 2), 4]
    results = []
    for device in ("cpu", "cuda"):
        logits, flat = values.to(device, copy=True).requires_grad_(), labels.to(device)
        valid = (flat != 5).float() if masked else None
        sums = torch.stack(TargetSums.apply(logits, flat, membership_table(regions, flat.device), valid))
        (sums * torch.arange(4, device=device).view(4, 1, 1)).sum().backward()
        results.append([sums.detach().cpu(), logits.grad.cpu()])  # type: ignore[union-attr]
    for expected, result in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_a_gpu_without_a_compiler_gives_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duplus_nnunet.networks.kernels", None)
    monkeypatch.delattr("duplus_nnunet.networks.kernels", raising=False)
    monkeypatch.setattr(torch.version, "hip", None)
    gpu = torch.device("cuda", 7)
    with pytest.warns(UserWarning, match="(?s)cuda:7.*triton.*gcc"):
        assert acceleration.find_kernels(gpu) is None
    assert acceleration.find_kernels(gpu) is None


def test_a_cpu_has_no_kernels() -> None:
    assert acceleration.find_kernels(torch.device("cpu")) is None


def test_heads_are_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    maps, weights = torch.randn(1, 8, 5, 5, 5), torch.randn(1, 3, head.count_weights(8))
    expected = head.apply_heads(maps, weights)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head.apply_heads(maps, weights), expected)
