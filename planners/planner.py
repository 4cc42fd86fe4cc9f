"""nnU-Net's planners, with the two prompts: in comes a raw dataset and its fingerprint, out comes a plans file.

nnU-Net decides spacing, patch, batch and network; these planners add the part `duplus` and leave out what a
text-steered 3D network cannot be.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from duplus_nnunet.errors import DataError, PlansError
from duplus_nnunet.planners.label_manager import DuPLUSLabelManager
from duplus_nnunet.planners.orientation import find_left_right_axis
from duplus_nnunet.planners.prompt_section import build_section
from duplus_nnunet.prompt_registry import find_entry
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.settings import NOT_PLANNED, PLANS_KEY, NetworkSettings


def read_section(dataset_name: str, dataset_json: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Collect what a dataset's plans will hold under `duplus`; see build_section.

    Raises:
        DuplusError: Labels, prompts or embeddings are not as they have to be.
    """
    entry = find_entry(dataset_name, dataset_json, folder)
    labels = dataset_json["labels"]
    try:
        DuPLUSLabelManager(labels, dataset_json.get("regions_class_order"))
    except (AssertionError, RuntimeError) as error:  # nnU-Net's own checks
        raise DataError(f"{Path(folder) / 'dataset.json'}: {error}") from error
    return build_section(entry, labels)


def check_dataset(dataset_name_or_id: str | int) -> None:
    """Find what would stop planning, before the fingerprint is taken, which can be an hour earlier.

    Raises:
        DuplusError: Labels, prompts or embeddings are not as they have to be, or plans cannot be written.
    """
    name = maybe_convert_to_dataset_name(dataset_name_or_id)
    folder = Path(nnUNet_raw, name)
    read_section(name, read_dataset_json(folder / "dataset.json"), folder)
    target = Path(nnUNet_preprocessed, name)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target} cannot be made: {error}. Point nnUNet_preprocessed to a writable folder.") from error
    if not os.access(target, os.W_OK):
        raise DataError(f"{target} is not writable. Point nnUNet_preprocessed to a writable folder.")


def _refuse_other_plans(file: Path) -> None:
    """Stop before plans of another planner are overwritten, and before their 2D configurations are taken along."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if PLANS_KEY not in found:
        raise PlansError(
            f"{file} holds plans of {found.get('experiment_planner_used')!r}, not of DuPLUS, and is not overwritten. "
            "Name others with -overwrite_plans_name, or leave that option out."
        )


class _Prompted:
    """What every DuPLUS planner adds to one of nnU-Net's. To be mixed in before it."""

    plans_name = "DuPLUSPlans"
    gpu_memory_gib: float = 8

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float | None = None,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        """Differs from nnU-Net: the default plans name is ours."""
        super().__init__(  # type: ignore[call-arg]
            dataset_name_or_id,
            gpu_memory_target_in_gb=self.gpu_memory_gib if gpu_memory_target_in_gb is None else gpu_memory_target_in_gb,
            preprocessor_name=preprocessor_name,
            plans_name=plans_name or self.plans_name,
            overwrite_target_spacing=overwrite_target_spacing,
            suppress_transpose=suppress_transpose,
        )

    def plan_experiment(self: Any) -> dict[str, Any]:
        """Differs from nnU-Net: labels and prompts are checked first, so that nothing is written on an error."""
        self._section = read_section(self.dataset_name, self.dataset_json, self.raw_dataset_folder)
        _refuse_other_plans(Path(nnUNet_preprocessed, self.dataset_name, f"{self.plans_identifier}.json"))
        plans: dict[str, Any] = super().plan_experiment()  # type: ignore[misc]
        return plans

    def generate_data_identifier(self: Any, configuration_name: str) -> str:
        """Differs from nnU-Net: residual-encoder plans do not write into the folder of nnU-Net's default plans."""
        return f"{self.plans_identifier}_{configuration_name}"

    def static_estimate_VRAM_usage(  # noqa: N802
        self: Any,
        patch_size: tuple[int, ...],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: tuple[str, ...],
    ) -> int:
        """Differs from nnU-Net: the last layer is the projection and a logit a target; FiLM needs no memory."""
        outputs = NetworkSettings().head_features + len(self._section["targets"])
        estimate: int = super().static_estimate_VRAM_usage(  # type: ignore[misc]
            patch_size,
            input_channels,
            outputs if len(patch_size) == 3 else output_channels,
            arch_class_name,
            arch_kwargs,
            arch_kwargs_req_import,
        )
        return estimate

    def save_plans(self: Any, plans: dict[str, Any]) -> None:
        """Differs from nnU-Net: unsupported configurations are dropped, labels and prompts are ours.

        Raises:
            DataError: The images are 2D.
        """
        if "3d_fullres" not in plans["configurations"]:
            raise DataError(
                f"The images of {self.dataset_name} are two-dimensional; the prompts steer a 3D network. Use nnU-Net's "
                "own planner and trainer for them."
            )
        for name in NOT_PLANNED:
            plans["configurations"].pop(name, None)
        for configuration in plans["configurations"].values():
            configuration.pop("next_stage", None)
        axis = find_left_right_axis(self.dataset, plans["image_reader_writer"])
        self._section["left_right_axis"] = None if axis is None else plans["transpose_forward"].index(axis)
        plans["label_manager"] = DuPLUSLabelManager.__name__
        plans[PLANS_KEY] = self._section
        super().save_plans(plans)  # type: ignore[misc]


class DuPLUSPlanner(_Prompted, ExperimentPlanner):
    """nnU-Net's default planner (plain U-Net), with prompts."""


class DuPLUSPlannerResEncM(_Prompted, nnUNetPlannerResEncM):
    """nnU-Net's residual-encoder preset M (8 GiB), with prompts."""

    plans_name = "DuPLUSResEncUNetMPlans"


class DuPLUSPlannerResEncL(_Prompted, nnUNetPlannerResEncL):
    """nnU-Net's residual-encoder preset L (24 GiB), with prompts."""

    plans_name = "DuPLUSResEncUNetLPlans"
    gpu_memory_gib = 24


class DuPLUSPlannerResEncXL(_Prompted, nnUNetPlannerResEncXL):
    """nnU-Net's residual-encoder preset XL (40 GiB), with prompts."""

    plans_name = "DuPLUSResEncUNetXLPlans"
    gpu_memory_gib = 40
