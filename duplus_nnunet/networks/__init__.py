"""Tensors only: FiLM, the dynamic head, and their injection into a U-Net; no files and no nnU-Net here."""

from duplus_nnunet.networks.conditioned_unet import ConditionedUNet, condition
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.networks.text_table import TextTable
from duplus_nnunet.networks.unwrapping import unwrap

__all__ = ["ConditionedUNet", "Prompts", "TextTable", "condition", "unwrap"]
