"""Model folders of stock nnU-Net with tiny networks, as its planner and trainer write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

IMPORTED = ["conv_op", "norm_op", "dropout_op", "nonlin"]
STATISTICS = {"mean": 50.0, "median": 60.0, "std": 30.0, "min": -900.0, "max": 900.0}
CT = {**STATISTICS, "percentile_00_5": -100.0, "percentile_99_5": 300.0}
LAYERS: dict[str, Any] = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2]],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
BLOCKS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
RESAMPLING = {
    **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in ("data", "seg", "probabilities")},
    **{
        f"resampling_fn_{kind}_kwargs": {"is_seg": kind == "seg", "order": 1, "order_z": 0, "force_separate_z": None}
        for kind in ("data", "seg", "probabilities")
    },
}


def make_configuration(kind: str = "PlainConvUNet") -> dict[str, Any]:
    """Make a configuration as nnU-Net 2.6 and newer write it."""
    return {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 3,
        "patch_size": [4, 8, 16],
        "median_image_size_in_voxels": [10.0, 20.0, 30.0],
        "spacing": [3.0, 1.5, 1.25],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **RESAMPLING,
        "batch_dice": True,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
            "arch_kwargs": {**LAYERS, BLOCKS[kind]: [1, 1]},
            "_kw_requires_import": IMPORTED,
        },
    }


def make_old_configuration(kind: str = "PlainConvUNet") -> dict[str, Any]:
    """Make the same configuration as nnU-Net 2.0 to 2.5 write it."""
    configuration = make_configuration(kind)
    del configuration["architecture"]
    return {
        **configuration,
        "UNet_class_name": kind,
        "UNet_base_num_features": 4,
        "unet_max_num_features": 320,
        "n_conv_per_stage_encoder": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "num_pool_per_axis": [0, 1, 1],
        "pool_op_kernel_sizes": LAYERS["strides"],
        "conv_kernel_sizes": LAYERS["kernel_sizes"],
    }


def make_plans(configuration: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Make plans with one configuration, 3d_fullres, and the 2D one that nnU-Net always plans."""
    flat = {**make_configuration(), "patch_size": [8, 16], "spacing": [1.5, 1.25]}
    return {
        "dataset_name": "Dataset291_Stock",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 1.5, 1.25],
        "original_median_shape_after_transp": [10, 20, 30],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [1, 0, 2],
        "transpose_backward": [1, 0, 2],
        "configurations": {"2d": flat, "3d_fullres": {**configuration, "next_stage": "3d_cascade_fullres"}},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": CT},
        **changes,
    }


def make_weights(kind: str = "PlainConvUNet", channels: int = 1) -> dict[str, torch.Tensor]:
    """Make the weights of the configuration's network, with five classes."""
    layers = {**LAYERS, BLOCKS[kind]: [1, 1]}
    name = f"dynamic_network_architectures.architectures.unet.{kind}"
    weights: dict[str, torch.Tensor] = get_network_from_plans(name, layers, IMPORTED, channels, 5).state_dict()
    return weights


def write_model(
    folder: Path, plans: dict[str, Any], weights: dict[str, torch.Tensor], dataset: dict[str, Any] | None = None
) -> Path:
    """Write the folder of a model of a trainer that is not installed; return it."""
    model = folder / "Dataset291_Stock" / "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(plans))
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    (model / "dataset.json").write_text(json.dumps(described if dataset is None else dataset))
    settings = {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": described}
    log = {"mean_fg_dice": [np.float64(0.5)], "dice_per_class_or_region": [[np.float32(0.5)]], "lrs": [0.01]}
    content = {
        "network_weights": weights,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": log,
        "_best_ema": np.float64(0.4),
        "current_epoch": 4000,
        "init_args": {**settings, "unpack_dataset": True, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer_4000epochs_NoMirroring",
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(content, model / "fold_0" / "checkpoint_final.pth")
    return model
