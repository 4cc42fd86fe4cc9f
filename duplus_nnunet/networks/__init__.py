"""Implements FiLM, the dynamic head and adapters, and adds them to a U-Net; independent of files and of nnU-Net."""

from duplus_nnunet.networks.conditioned_unet import ConditionedUNet, condition, unwrap
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.networks.text_table import TextTable

__all__ = ["ConditionedUNet", "Prompts", "TextTable", "condition", "unwrap"]
