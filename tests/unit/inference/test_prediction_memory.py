"""What a prediction holds in memory: nothing twice, nothing longer than it is needed."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from duplus_nnunet.inference.memory import return_freed_memory
from duplus_nnunet.inference.model import _share_weights
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.networks import ConditionedUNet, Prompts, condition
from duplus_nnunet.networks.conditioned_unet import LARGEST_LOGIT
from duplus_nnunet.networks.head import apply_heads, count_weights

E, F = 6, 12
WINDOWS = [torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
# Keeps a small array above many large ones that are freed: they stay with the process unless it was told otherwise.
GROW = """
import ctypes, sys
import numpy, psutil
from duplus_nnunet.inference.memory import return_freed_memory
if sys.argv[1] == "returned":
    assert return_freed_memory()
# By freeing one that large, the C library learns to keep what is smaller.
first = numpy.ones(30 << 20, numpy.uint8); del first
kept = []
for _ in range(20):
    large = [numpy.ones(6 << 20, numpy.uint8) for _ in range(4)]
    kept.append((numpy.ones(64 << 10, numpy.uint8), large))
before = psutil.Process().memory_info().rss
kept = [small for small, _ in kept]; del large
print(before - psutil.Process().memory_info().rss)
"""


def make_network() -> ConditionedUNet:
    torch.manual_seed(0)
    unet = PlainConvUNet(
        input_channels=1, n_stages=3, features_per_stage=[4, 8, 8], conv_op=nn.Conv3d, kernel_sizes=3,
        strides=[1, 2, 2], num_classes=1, n_conv_per_stage=2, n_conv_per_stage_decoder=2, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    network = condition(unet, (E, F))
    network.bind(Prompts(torch.randn(1, E), torch.randn(20, F)))
    return network


class Host:
    """Adds windows to sums as nnU-Net does, and holds on to the last one."""

    def predict_sliding_window_return_logits(self, image: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(self.label_manager.num_segmentation_heads, 8, 8, 8)
        for x in WINDOWS:
            self.held.append(self._internal_maybe_mirror_and_predict(x)[0])
            sums += self.held[-1]
        return sums


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> WindowPredictor:
    """A predictor with a network; nnU-Net's walk over an image is replaced by one over three windows."""
    name = "predict_sliding_window_return_logits"
    monkeypatch.setattr(nnUNetPredictor, name, getattr(Host, name))
    predictor = WindowPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.network, predictor.held = make_network().eval(), []
    predictor.left_right_axis = None
    predictor.allowed_mirroring_axes, predictor.label_manager = (0, 1), SimpleNamespace(num_segmentation_heads=1)
    return predictor


@pytest.mark.parametrize("targets", [1, 16, 37])
def test_half_logits_are_the_others_rounded(targets: int) -> None:
    maps, weights = torch.randn(2, 8, 5, 6, 7), torch.randn(2, targets, count_weights(8))
    found = apply_heads(maps, weights, half=True)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, apply_heads(maps, weights).half(), rtol=1e-3, atol=1e-5)


def test_logits_are_half_where_they_are_wanted_and_never_in_training() -> None:
    network = make_network()
    with torch.inference_mode():
        exact = network.eval()(WINDOWS[0])
        network.half_logits = True
        found = network(WINDOWS[0])
        assert network.train()(WINDOWS[0]).dtype == torch.float32
    assert (exact.dtype, found.dtype) == (torch.float32, torch.float16)
    torch.testing.assert_close(found.float(), exact, rtol=1e-3, atol=1e-4)


def test_half_logits_stay_bounded() -> None:
    network = make_network().eval()
    network.half_logits = True
    with torch.inference_mode():
        network.generator.base *= 1e4
        found = network(WINDOWS[0])
    assert found.isfinite().all()
    assert found.abs().max() == LARGEST_LOGIT


def test_a_window_is_released_when_the_next_one_begins_and_the_sums_are_the_same(host: Any) -> None:
    with torch.inference_mode():
        logits = host.predict_sliding_window_return_logits(WINDOWS[0])
        expected = sum(host._internal_maybe_mirror_and_predict(x)[0] for x in WINDOWS)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    assert [window.untyped_storage().nbytes() > 0 for window in host.held] == [False, False, True]


def test_windows_that_a_caller_asks_for_are_not_released(host: Any) -> None:
    with torch.inference_mode():
        kept = [host._internal_maybe_mirror_and_predict(x) for x in WINDOWS]
    assert all(window.untyped_storage().nbytes() > 0 for window in kept)


def test_an_observer_is_given_the_logits_of_each_image(host: Any) -> None:
    seen: list[torch.Tensor] = []
    host.network.on_image_logits = seen.append
    with torch.inference_mode():
        logits = host.predict_sliding_window_return_logits(WINDOWS[0])
    assert seen[0] is logits


def make_loaded(network: ConditionedUNet, folds: list[dict[str, torch.Tensor]]) -> WindowPredictor:
    predictor = WindowPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.network, predictor.list_of_parameters = network, folds
    return predictor


def test_a_single_fold_is_held_once_and_nnunet_can_load_it_again_and_again() -> None:
    network, other = make_network(), make_network()
    with torch.no_grad():
        other.generator.mix.weight += 1
    host = make_loaded(network, [other.state_dict()])
    _share_weights(host)
    for _ in range(2):
        network.load_state_dict(host.list_of_parameters[0])
    for name, value in network.state_dict().items():
        assert value.data_ptr() == host.list_of_parameters[0][name].data_ptr()
        torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=0)


def test_several_folds_stay_apart() -> None:
    folds = [make_network().state_dict(), make_network().state_dict()]
    host = make_loaded(make_network(), list(folds))
    _share_weights(host)
    assert all(one is other for one, other in zip(host.list_of_parameters, folds, strict=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc, on Linux, keeps what was freed like this")
def test_freed_memory_goes_back_to_the_system() -> None:
    freed = {
        word: int(subprocess.run([sys.executable, "-c", GROW, word], check=True, capture_output=True).stdout)
        for word in ("kept", "returned")
    }
    assert freed["returned"] > 0.9 * 20 * 4 * (6 << 20)
    assert freed["kept"] < freed["returned"] / 2


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert not return_freed_memory()


def test_predicting_does_not_import_what_draws() -> None:
    lines = (
        "import sys, nnunetv2.inference.predict_from_raw_data, duplus_nnunet.inference.host",
        "print('matplotlib' in sys.modules)",
    )
    done = subprocess.run([sys.executable, "-c", "; ".join(lines)], check=True, capture_output=True, text=True)
    assert done.stdout.strip().endswith("False")
