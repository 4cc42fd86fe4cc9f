"""Lists every name of nnU-Net that this package replaces, overrides, calls or reads, with the parameters it relies on.

A parameter is written as its name. Spellings of different versions are joined by `|`, and a final `...` accepts any
further parameter. None instead of parameters asks for the name alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Use(StrEnum):
    """What this package does with a name of nnU-Net."""

    REPLACED = "replaced"
    OVERRIDDEN = "overridden"
    CALLED = "called"
    READ = "read"


@dataclass(frozen=True)
class Need:
    """One name of nnU-Net that this package relies on.

    Attributes:
        module: The module of nnU-Net.
        name: The name inside the module, such as `nnUNetTrainer.train_step`.
        use: What this package does with it.
        parameters: Its parameters without `self`; None if only the name matters.
    """

    module: str
    name: str
    use: Use
    parameters: tuple[str, ...] | None = None

    @property
    def dotted_name(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.name}"


# Names -> their parameters, separated by spaces.
Signatures = Mapping[str, str | None]


def _list_needs(use: Use, module: str, table: Signatures, owner: str = "") -> Iterator[Need]:
    prefix = f"{owner}." if owner else ""
    for name, parameters in table.items():
        yield Need(module, prefix + name, use, None if parameters is None else tuple(parameters.split()))


def _list_attributes(module: str, owner: str, names: str) -> Iterator[Need]:
    return _list_needs(Use.READ, module, dict.fromkeys(names.split()), owner)


_TRAINING = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
_PLANNING = "nnunetv2.experiment_planning.experiment_planners"
_ENTRYPOINTS = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
_PREPROCESSING = "nnunetv2.preprocessing.preprocessors.default_preprocessor"
_LABELS = "nnunetv2.utilities.label_handling.label_handling"
_PLANS = "nnunetv2.utilities.plans_handling.plans_handler"
_PREDICTION = "nnunetv2.inference.predict_from_raw_data"
_WINDOWS = "nnunetv2.inference.sliding_window_prediction"
_LOGGER = "nnunetv2.training.logging.nnunet_logger"

# The methods of nnUNetPredictor that `duplus_nnunet.inference.takeover` replaces.
REPLACED_PREDICTOR_METHODS: Signatures = {
    "initialize_from_trained_model_folder": "model_training_output_dir use_folds checkpoint_name",
    "manual_initialization": (
        "network plans_manager configuration_manager parameters dataset_json trainer_name "
        "inference_allowed_mirroring_axes"
    ),
}
# The methods that subclasses of nnUNetPredictor in `duplus_nnunet.inference` override.
OVERRIDDEN_PREDICTOR_METHODS: Signatures = {
    "predict_from_files": (
        "list_of_lists_or_source_folder output_folder_or_list_of_truncated_output_files save_probabilities overwrite "
        "num_processes_preprocessing num_processes_segmentation_export folder_with_segs_from_prev_stage num_parts "
        "part_id"
    ),
    "predict_from_files_sequential": (
        "list_of_lists_or_source_folder output_folder_or_list_of_truncated_output_files save_probabilities overwrite "
        "folder_with_segs_from_prev_stage"
    ),
    "predict_from_data_iterator": "data_iterator save_probabilities num_processes_segmentation_export",
    "predict_single_npy_array": (
        "input_image image_properties segmentation_previous_stage output_file_truncated save_or_return_probabilities"
    ),
    "predict_logits_from_preprocessed_data": "data",
    "predict_sliding_window_return_logits": "input_image",
    "_internal_maybe_mirror_and_predict": "x",
    "_internal_get_sliding_window_slicers": "image_size",
}
# The methods of nnUNetPredictor that this package calls and does not replace.
CALLED_PREDICTOR_METHODS: Signatures = {
    "__init__": (
        "tile_step_size use_gaussian use_mirroring perform_everything_on_device device verbose verbose_preprocessing "
        "allow_tqdm"
    ),
    "_manage_input_and_output_lists": (
        "list_of_lists_or_source_folder output_folder_or_list_of_truncated_output_files "
        "folder_with_segs_from_prev_stage overwrite part_id num_parts save_probabilities"
    ),
}
# The attributes of an nnUNetPredictor that this package reads or sets.
PREDICTOR_ATTRIBUTES = (
    "network plans_manager configuration_manager dataset_json label_manager list_of_parameters allowed_mirroring_axes "
    "use_mirroring use_gaussian perform_everything_on_device tile_step_size device verbose_preprocessing"
)

_WITHOUT_ARGUMENTS = (
    "initialize configure_optimizers configure_rotation_dummyDA_mirroring_and_inital_patch_size "
    "get_tr_and_val_datasets get_dataloaders do_split run_training on_train_start on_train_end "
    "on_train_epoch_start on_epoch_end on_validation_epoch_start print_plans _build_loss "
    "_do_i_compile _set_batch_size_and_oversample"
)
_OVERRIDDEN_TRAINER_METHODS: Signatures = {
    **dict.fromkeys(_WITHOUT_ARGUMENTS.split(), ""),
    "__init__": "plans configuration fold dataset_json device",
    "build_network_architecture": (
        "plans_manager configuration_manager num_input_channels num_output_channels enable_deep_supervision"
    ),
    "get_training_transforms": "regions ...",
    "get_validation_transforms": "regions ...",
    "train_step": "batch",
    "on_train_epoch_end": "train_outputs",
    "validation_step": "batch",
    "on_validation_epoch_end": "val_outputs",
    "perform_actual_validation": "save_probabilities",
    "save_checkpoint": "filename",
    "load_checkpoint": "filename_or_checkpoint|checkpoint",
    "print_to_log_file": "...",
}
_TRAINER_ATTRIBUTES = (
    "plans_manager configuration_manager configuration_name dataset_json label_manager fold device is_ddp local_rank "
    "my_init_kwargs was_initialized output_folder preprocessed_dataset_folder preprocessed_dataset_folder_base "
    "dataset_class batch_size network optimizer grad_scaler loss logger dataloader_train dataloader_val initial_lr "
    "weight_decay oversample_foreground_percent num_epochs num_iterations_per_epoch num_val_iterations_per_epoch "
    "current_epoch save_every enable_deep_supervision disable_checkpointing inference_allowed_mirroring_axes "
    "_best_ema"
)
_PLANNER_CALL = (
    "dataset_name_or_id gpu_memory_target_in_gb preprocessor_name plans_name overwrite_target_spacing "
    "suppress_transpose"
)

NEEDS = (
    # looking classes up, pretrained weights, commands
    *_list_needs(
        Use.REPLACED,
        "nnunetv2.utilities.find_class_by_name",
        {"recursive_find_python_class": "folder class_name current_module ..."},
    ),
    *_list_needs(
        Use.REPLACED, "nnunetv2.run.load_pretrained_weights", {"load_pretrained_weights": "network fname verbose"}
    ),
    *_list_needs(
        Use.REPLACED,
        "nnunetv2.run.run_training",
        {
            "run_training_entry": "",
            "run_training": (
                "dataset_name_or_id configuration fold trainer_class_name plans_identifier num_gpus "
                "continue_training only_run_validation device ..."
            ),
        },
    ),
    *_list_needs(
        Use.REPLACED,
        _ENTRYPOINTS,
        {"plan_and_preprocess_entry": "", "plan_experiment_entry": "", "preprocess_entry": ""},
    ),
    *_list_needs(
        Use.REPLACED,
        "nnunetv2.experiment_planning.plan_and_preprocess_api",
        {"preprocess_dataset": "dataset_id plans_identifier configurations ..."},
    ),
    # prediction
    *_list_needs(
        Use.REPLACED,
        _PREDICTION,
        {"predict_entry_point": "", "predict_entry_point_modelfolder": "", "nnUNetPredictor": None},
    ),
    *_list_needs(Use.REPLACED, _PREDICTION, REPLACED_PREDICTOR_METHODS, "nnUNetPredictor"),
    *_list_needs(Use.OVERRIDDEN, _PREDICTION, OVERRIDDEN_PREDICTOR_METHODS, "nnUNetPredictor"),
    *_list_needs(Use.CALLED, _PREDICTION, CALLED_PREDICTOR_METHODS, "nnUNetPredictor"),
    *_list_attributes(_PREDICTION, "nnUNetPredictor", PREDICTOR_ATTRIBUTES),
    *_list_needs(
        Use.CALLED,
        _PREDICTION,
        {"pad_nd_image": "image new_shape mode kwargs return_slicer shape_must_be_divisible_by"},
    ),
    *_list_needs(
        Use.CALLED,
        _WINDOWS,
        {
            "compute_gaussian": "tile_size sigma_scale value_scaling_factor dtype device",
            "compute_steps_for_sliding_window": "image_size tile_size tile_step_size",
        },
    ),
    *_list_needs(
        Use.REPLACED,
        "nnunetv2.inference.export_prediction",
        {
            "convert_predicted_logits_to_segmentation_with_correct_shape": (
                "predicted_logits plans_manager configuration_manager label_manager properties_dict"
            )
        },
    ),
    # training
    *_list_needs(Use.OVERRIDDEN, _TRAINING, _OVERRIDDEN_TRAINER_METHODS, "nnUNetTrainer"),
    *_list_attributes(_TRAINING, "nnUNetTrainer", _TRAINER_ATTRIBUTES),
    *_list_needs(
        Use.REPLACED,
        _TRAINING,
        {
            "SingleThreadedAugmenter": "data_loader transform",
            "NonDetMultiThreadedAugmenter": "data_loader transform num_processes num_cached pin_memory wait_time ...",
            "DDP": "module device_ids ...",
            "save_json": "obj file ...",
            **dict.fromkeys(("shutil", "torch")),
        },
    ),
    *_list_needs(
        Use.CALLED,
        _LOGGER,
        {
            "log": "key value step",
            "log_summary": "key value",
            "plot_progress_png": "output_folder",
            "get_checkpoint": "",
            "load_checkpoint": "checkpoint",
        },
        "MetaLogger",
    ),
    *_list_attributes(_LOGGER, "MetaLogger", "local_logger loggers"),
    *_list_needs(Use.CALLED, _LOGGER, {"get_checkpoint": "", "load_checkpoint": "checkpoint"}, "LocalLogger"),
    *_list_needs(Use.OVERRIDDEN, _LOGGER, {"plot_progress_png": "output_folder"}, "LocalLogger"),
    *_list_attributes(_LOGGER, "LocalLogger", "my_fantastic_logging"),
    *_list_needs(
        Use.OVERRIDDEN,
        "nnunetv2.training.lr_scheduler.polylr",
        {"__init__": "optimizer initial_lr max_steps ...", "step": "current_step"},
        "PolyLRScheduler",
    ),
    *_list_attributes("nnunetv2.training.lr_scheduler.polylr", "PolyLRScheduler", "initial_lr max_steps ctr"),
    *_list_needs(Use.CALLED, "nnunetv2.utilities.ddp_allgather", {"AllGatherGrad.apply": None}),
    *_list_needs(Use.CALLED, "nnunetv2.utilities.helpers", {"dummy_context": ""}),
    *_list_needs(
        Use.CALLED,
        "nnunetv2.utilities.get_network_from_plans",
        {
            "get_network_from_plans": (
                "arch_class_name arch_kwargs arch_kwargs_req_import input_channels output_channels deep_supervision ..."
            )
        },
    ),
    # planning
    *_list_needs(
        Use.OVERRIDDEN,
        f"{_PLANNING}.default_experiment_planner",
        {
            "__init__": _PLANNER_CALL,
            "plan_experiment": "",
            "generate_data_identifier": "configuration_name",
            "static_estimate_VRAM_usage": (
                "patch_size input_channels output_channels arch_class_name arch_kwargs arch_kwargs_req_import"
            ),
            "save_plans": "plans",
        },
        "ExperimentPlanner",
    ),
    *_list_needs(
        Use.CALLED,
        f"{_PLANNING}.default_experiment_planner",
        {
            "determine_reader_writer": "",
            "determine_fullres_target_spacing": "",
            "determine_normalization_scheme_and_whether_mask_is_used_for_norm": "",
        },
        "ExperimentPlanner",
    ),
    *_list_attributes(
        f"{_PLANNING}.default_experiment_planner",
        "ExperimentPlanner",
        "dataset dataset_name dataset_json dataset_fingerprint raw_dataset_folder plans_identifier "
        "overwrite_target_spacing",
    ),
    *_list_needs(
        Use.OVERRIDDEN,
        f"{_PLANNING}.residual_unets.residual_encoder_unet_planners",
        {f"nnUNetPlannerResEnc{size}.__init__": _PLANNER_CALL for size in ("M", "L", "XL")},
    ),
    *_list_needs(
        Use.CALLED,
        "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor",
        {"DatasetFingerprintExtractor.collect_foreground_intensities": "segmentation images num_samples"},
    ),
    *_list_needs(Use.CALLED, "nnunetv2.preprocessing.cropping.cropping", {"crop_to_nonzero": "data seg"}),
    *_list_needs(
        Use.CALLED,
        "nnunetv2.preprocessing.resampling.default_resampling",
        {
            "compute_new_shape": "old_shape old_spacing new_spacing",
            "determine_do_sep_z_and_axis": (
                "force_separate_z current_spacing new_spacing separate_z_anisotropy_threshold"
            ),
        },
    ),
    # preprocessing, plans and labels
    *_list_needs(Use.REPLACED, _PREPROCESSING, {"PlansManager": "plans_file_or_dict"}),
    *_list_needs(
        Use.OVERRIDDEN,
        _PREPROCESSING,
        {
            "__init__": "verbose",
            "run": "dataset_name_or_id configuration_name plans_identifier num_processes",
            "run_case": "image_files seg_file plans_manager configuration_manager dataset_json",
            "run_case_npy": "data seg properties plans_manager configuration_manager dataset_json",
        },
        "DefaultPreprocessor",
    ),
    *_list_needs(
        Use.OVERRIDDEN,
        "nnunetv2.preprocessing.normalization.default_normalization_schemes",
        {"run": "image seg", "leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true": None},
        "ImageNormalization",
    ),
    *_list_attributes(
        "nnunetv2.preprocessing.normalization.default_normalization_schemes",
        "ImageNormalization",
        "intensityproperties",
    ),
    *_list_needs(
        Use.OVERRIDDEN,
        _LABELS,
        {
            "__init__": "label_dict regions_class_order force_use_labels inference_nonlin",
            "_get_regions": "",
            "foreground_labels": None,
            "convert_probabilities_to_segmentation": "predicted_probabilities",
            "convert_logits_to_segmentation": "predicted_logits",
        },
        "LabelManager",
    ),
    *_list_attributes(
        _LABELS,
        "LabelManager",
        "label_dict regions_class_order foreground_regions num_segmentation_heads ignore_label _force_use_labels "
        "_has_regions",
    ),
    *_list_needs(
        Use.CALLED, _PLANS, {"__init__": "plans_file_or_dict", "get_label_manager": "dataset_json"}, "PlansManager"
    ),
    *_list_attributes(
        _PLANS, "PlansManager", "plans dataset_name image_reader_writer_class transpose_forward transpose_backward"
    ),
    *_list_needs(Use.CALLED, _PLANS, {"ConfigurationManager.__init__": "configuration_dict"}),
    *_list_attributes(
        _PLANS,
        "ConfigurationManager",
        "configuration preprocessor_class patch_size spacing resampling_fn_probabilities batch_dice",
    ),
    # folders, files and scores
    *_list_needs(Use.READ, "nnunetv2.configuration", {"default_num_processes": None, "ANISO_THRESHOLD": None}),
    *_list_needs(Use.READ, "nnunetv2.paths", {"nnUNet_raw": None, "nnUNet_preprocessed": None, "nnUNet_results": None}),
    *_list_needs(
        Use.CALLED,
        "nnunetv2.utilities.dataset_name_id_conversion",
        {"convert_id_to_dataset_name": "dataset_id", "maybe_convert_to_dataset_name": "dataset_name_or_id"},
    ),
    *_list_needs(
        Use.CALLED,
        "nnunetv2.utilities.file_path_utilities",
        {"get_output_folder": "dataset_name_or_id trainer_name plans_identifier configuration fold"},
    ),
    *_list_needs(
        Use.CALLED, "nnunetv2.utilities.find_objects", {"recursive_find_trainer_class_by_name": "trainer_name"}
    ),
    *_list_needs(
        Use.CALLED,
        "nnunetv2.utilities.utils",
        {"create_lists_from_splitted_dataset_folder": "folder file_ending"},
    ),
    *_list_needs(
        Use.CALLED,
        "nnunetv2.imageio.reader_writer_registry",
        {
            "determine_reader_writer_from_dataset_json": "dataset_json_content example_file verbose",
            "recursive_find_reader_writer_by_name": "rw_class_name",
        },
    ),
    *_list_needs(
        Use.CALLED,
        "nnunetv2.evaluation.evaluate_predictions",
        {"load_summary_json": "filename", "save_summary_json": "results output_file"},
    ),
)
