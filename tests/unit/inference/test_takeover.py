"""nnU-Net's predictor becomes ours with a DuPLUS network, and stays nnU-Net's with any other one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from duplus_nnunet.inference.host import HostPredictor
from duplus_nnunet.inference.takeover import PATCHED
from duplus_nnunet.inference.windows import WindowPredictor

from ..networks.test_steering import make_network

CPU = torch.device("cpu")
PLANS = SimpleNamespace(plans={}, get_label_manager=lambda dataset_json: None)


def give(predictor: nnUNetPredictor, network: torch.nn.Module) -> Any:
    """Give a predictor a network, as nnU-Net's trainer does."""
    predictor.manual_initialization(network, PLANS, None, None, {}, "DuPLUSTrainer", None)
    return predictor


class Compiled(torch.nn.Module):
    """Stands in for torch.compile."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = network


@pytest.mark.parametrize("wrap", [lambda network: network, Compiled])
def test_a_predictor_with_our_network_is_ours(wrap: Any) -> None:
    predictor = give(nnUNetPredictor(device=CPU), wrap(make_network((4, 8))))
    assert type(predictor) is WindowPredictor


def test_a_predictor_with_another_network_stays_nnunets() -> None:
    predictor = give(nnUNetPredictor(device=CPU), torch.nn.Identity())
    assert type(predictor) is nnUNetPredictor


def test_a_subclass_of_a_script_keeps_what_it_overrides() -> None:
    class Own(nnUNetPredictor):  # type: ignore[misc]
        def predict_from_files(self, *args: Any, **more: Any) -> str:
            return "its own"

    predictor = give(Own(device=CPU), make_network((4, 8)))
    assert isinstance(predictor, (Own, WindowPredictor))
    assert type(predictor).__mro__.index(Own) < type(predictor).__mro__.index(WindowPredictor)
    assert predictor.predict_from_files() == "its own"


def test_two_methods_of_nnunets_predictor_are_replaced_and_no_others() -> None:
    methods = {name: value for name, value in vars(nnUNetPredictor).items() if callable(value)}
    files = {name: value.__code__.co_filename for name, value in methods.items() if hasattr(value, "__code__")}
    assert {name for name, file in files.items() if "duplus_nnunet" in file} == set(PATCHED)


def test_a_predictor_without_a_model_says_so() -> None:
    with pytest.raises(ValueError, match="initialize_from_trained_model_folder"):
        HostPredictor(device=CPU).predict_from_files("images", "out")
