"""Windows outside the body."""

from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from duplus_nnunet.inference.skipping import find_body, patch_skipping
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.networks.conditioned_unet import LARGEST_LOGIT

SIZE = 8
WINDOWS = [
    (slice(None), slice(z, z + SIZE), slice(y, y + SIZE), slice(x, x + SIZE))
    for z in (0, 8)
    for y in (0, 8)
    for x in (0, 8)
]


def make_image(noise: float = 0.0) -> torch.Tensor:
    """Make air of -1000 with noise, and a body of 0 to 100 in one corner."""
    image = torch.full((1, 16, 16, 16), -1000.0) + noise * torch.randn(1, 16, 16, 16)
    image[:, :7, :7, :7] = torch.rand(7, 7, 7) * 100
    return image


def test_windows_of_air_are_left_out() -> None:
    assert find_body(make_image(noise=10.0), WINDOWS) == WINDOWS[:1]


def test_lung_is_no_air() -> None:
    image = make_image()
    image[:, 8:, 8:, 8:] = -850.0
    assert find_body(image, WINDOWS) == [WINDOWS[0], WINDOWS[-1]]


def test_an_image_of_one_value_is_looked_at_nowhere_or_everywhere_alike() -> None:
    assert find_body(torch.zeros(1, 16, 16, 16), WINDOWS) in ([], WINDOWS)


@given(scale=st.floats(0.01, 100), shift=st.floats(-1e3, 1e3))
@settings(deadline=None, max_examples=20)
def test_units_do_not_matter(scale: float, shift: float) -> None:
    torch.manual_seed(0)
    assert find_body(make_image() * scale + shift, WINDOWS) == WINDOWS[:1]


def test_any_channel_makes_a_body() -> None:
    image = torch.cat([make_image(), make_image().flip(1)])
    assert find_body(image, WINDOWS) == [WINDOWS[0], WINDOWS[4]]


class Predictor:
    """Stands for nnU-Net's: says 1 wherever it looks."""

    def __init__(self) -> None:
        self.network = ConditionedUNet.__new__(ConditionedUNet)
        torch.nn.Module.__init__(self.network)
        self.network._bound = SimpleNamespace(count=2)  # type: ignore[assignment]
        self.looked: list[Any] = []

    def _internal_predict_sliding_window_return_logits(self, data: Any, slicers: Any, do_on_device: bool) -> Any:
        self.looked += slicers
        counts = torch.zeros(data.shape[1:], dtype=torch.half)
        sums = torch.zeros((2, *data.shape[1:]), dtype=torch.half)
        for window in slicers:
            sums[window] += 1
            counts[window[1:]] += 1
        return sums / counts


patch_skipping(Predictor)


def test_what_was_not_looked_at_is_background() -> None:
    predictor = Predictor()
    logits = predictor._internal_predict_sliding_window_return_logits(make_image(), WINDOWS, True)
    assert predictor.looked == WINDOWS[:1]
    assert bool((logits[:, :8, :8, :8] == 1).all())
    assert bool((logits[:, 8:] == -LARGEST_LOGIT).all())


def test_an_image_of_body_is_looked_at_whole() -> None:
    predictor = Predictor()
    predictor._internal_predict_sliding_window_return_logits(torch.rand(1, 16, 16, 16), WINDOWS, True)
    assert predictor.looked == WINDOWS
