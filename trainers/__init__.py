"""DuPLUS's trainer classes, which nnU-Net finds here through the start-up hook."""

from typing import TYPE_CHECKING, Any

from duplus_nnunet.trainers.adaptation import DuPLUSLoRATrainer
from duplus_nnunet.trainers.segmentation import DuPLUSTrainer

if TYPE_CHECKING:
    from duplus_nnunet.trainers.survival import DuPLUSSurvivalTrainer

__all__ = ["DuPLUSLoRATrainer", "DuPLUSSurvivalTrainer", "DuPLUSTrainer"]


def __getattr__(name: str) -> Any:
    """Import the survival trainer on first use, so that a segmentation training does not load the prognosis."""
    if name == "DuPLUSSurvivalTrainer":
        from duplus_nnunet.trainers.survival import DuPLUSSurvivalTrainer

        return DuPLUSSurvivalTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
