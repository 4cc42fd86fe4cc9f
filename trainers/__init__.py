"""nnU-Net trainer classes of DuPLUS. nnU-Net finds them here through the start-up hook."""

from duplus_nnunet.trainers.adaptation import DuPLUSLoRATrainer
from duplus_nnunet.trainers.segmentation import DuPLUSTrainer
from duplus_nnunet.trainers.survival import DuPLUSSurvivalTrainer

__all__ = ["DuPLUSLoRATrainer", "DuPLUSSurvivalTrainer", "DuPLUSTrainer"]
