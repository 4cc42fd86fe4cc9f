"""Makes nnU-Net's predictor ours where it is given a DuPLUS model; with any other model it stays as it is."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from torch import nn

# Methods of nnU-Net's predictor that are replaced; with a DuPLUS model they change the predictor's class to ours.
PATCHED = ("initialize_from_trained_model_folder", "manual_initialization")


def patch_predictor(predictor: type) -> None:
    """Replace the two methods of nnU-Net's predictor class that give it a model."""
    for name, wrap in zip(PATCHED, (_wrap_folder, _wrap_manual), strict=True):
        setattr(predictor, name, wrap(getattr(predictor, name)))


def _wrap_folder(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def initialize(self: "nnUNetPredictor", model_training_output_dir: str, *args: Any, **more: Any) -> None:
        from duplus_nnunet.inference.model_folder import is_ours

        if not _is_ours(type(self)) and is_ours(model_training_output_dir):
            from duplus_nnunet.inference.host import HostPredictor

            _become(self, HostPredictor)
            HostPredictor.initialize_from_trained_model_folder(self, model_training_output_dir, *args, **more)
            return
        original(self, model_training_output_dir, *args, **more)

    return initialize


def _wrap_manual(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def initialize(self: "nnUNetPredictor", network: "nn.Module", *args: Any, **more: Any) -> None:
        from duplus_nnunet.networks import ConditionedUNet, unwrap

        if not _is_ours(type(self)) and isinstance(unwrap(network), ConditionedUNet):
            from duplus_nnunet.inference.windows import WindowPredictor

            _become(self, WindowPredictor)
        original(self, network, *args, **more)

    return initialize


def _is_ours(predictor: type) -> bool:
    return any(base.__module__.startswith("duplus_nnunet.") for base in predictor.__mro__)


def _become(predictor: "nnUNetPredictor", ours: type) -> None:
    """Change the class of a predictor of nnU-Net's; what a script's own subclass overrides stays overridden."""
    own = type(predictor)
    predictor.__class__ = ours if own in ours.__mro__ else type(own.__name__, (own, ours), {})
