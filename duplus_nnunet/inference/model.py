"""A DuPLUS model in memory: weights of its folds, prompts, labels and the calibration of presence."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.adaptation.files import Adapter, read_adapter
from duplus_nnunet.adaptation.joining import join_labels
from duplus_nnunet.adaptation.loading import load_adapters
from duplus_nnunet.errors import DuplusError, HostError, ModelError
from duplus_nnunet.inference.model_folder import ModelFiles, check_checkpoints, read_model_plans, read_own_plans
from duplus_nnunet.inference.named_classes import require_names
from duplus_nnunet.inference.windows import WindowPredictor, count_processors
from duplus_nnunet.model_form import check_model
from duplus_nnunet.networks import ConditionedUNet
from duplus_nnunet.outputs.manifest import hash_file, list_versions
from duplus_nnunet.plans_form import PlannedBase, as_form
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.reporting.presence import PresenceCalibration
from duplus_nnunet.reporting.presence_files import read_calibration


@dataclass(frozen=True)
class ModelRecord:
    """Where a model came from.

    Attributes:
        name: Name of the model folder.
        folds: As nnU-Net names them.
        checkpoints: SHA-256 by path within the folder, and by adapter.
        versions: Of the programs that loaded it.
        notes: What may be wrong with it, a sentence each.
    """

    name: str
    folds: tuple[str, ...]
    checkpoints: Mapping[str, str]
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedModel:
    """A DuPLUS model in memory, with its adapters.

    Attributes:
        predictor: Runs nnU-Net's sliding window with the weights of every fold.
        plans: nnU-Net's plans; those of base and adapters joined.
        configuration: nnU-Net's configuration, of no context yet.
        dataset_json: Labels of all targets.
        bank: Prompts of all contexts and targets.
        record: Where it came from.
        calibration: What its validations say of the presence of targets.
        files: Which files it was loaded from; None if it was made in memory.
    """

    predictor: WindowPredictor
    plans: PlansManager
    configuration: ConfigurationManager
    dataset_json: dict[str, Any]
    bank: PromptBank
    record: ModelRecord
    calibration: PresenceCalibration
    files: ModelFiles | None = None

    @property
    def network(self) -> ConditionedUNet:
        """The network that all folds share, inside torch.compile."""
        return self.predictor.conditioned_network

    @property
    def folds(self) -> int:
        """Number of folds whose logits are averaged."""
        return len(self.predictor.list_of_parameters)

    @property
    def label_values(self) -> dict[str, Any]:
        """Label value of each target, or those of a region, by the target's name."""
        labels = self.dataset_json["labels"]
        return {name: labels[label] for name, label in zip(self.bank.names, self.bank.labels, strict=True)}


def load_model(
    predictor: WindowPredictor, files: ModelFiles, precision: str = "auto", masks: bool = True
) -> LoadedModel:
    """Load a model into a predictor.

    Args:
        predictor: With the settings of the sliding window; it is given the weights.
        files: What is loaded.
        precision: Of convolutions on a CPU, one of options.PRECISIONS.
        masks: Whether the model is to segment; without, a prognosis' encoder that was trained alone is accepted.

    Raises:
        ModelError: The folder does not hold a DuPLUS model, or a checkpoint or adapter is missing or damaged.
        PlansError: dataset.json was changed after planning, or adapters contradict each other or the base.
        HostError: nnU-Net was not changed by the start-up hook.
    """
    from duplus_nnunet.planners.label_manager import check_labels

    own = read_own_plans(files.folder)
    if PLANS_KEY not in own:
        raise ModelError(
            f"{files.folder} does not hold a DuPLUS model: its plans.json has no part {PLANS_KEY!r}. Name a model that "
            "was trained with -tr DuPLUSTrainer -p DuPLUSPlans."
        )
    form = as_form(own)
    declared = read_dataset_json(files.folder / "dataset.json")
    check_model(own, declared, files.folder)
    check_labels(declared, [target.label for target in form.targets], form.plans_name)
    joined = bool(files.adapters) or form.base is not None
    plans = read_model_plans(files.folder, files.adapters) if joined else own
    bank = PromptBank(plans if joined else form)
    checked = check_checkpoints(files, bank.embedding, masks, own, declared)
    for note in checked.notes:
        sys.stderr.write(f"warning: {files.folder}: {note}\n")
    require_names(own, checked.configuration, files.folder)
    _require_hook()
    _load_folds(predictor, files)
    predictor.allowed_mirroring_axes = checked.mirroring_axes or None
    adapters = [read_adapter(adapter) for adapter in files.adapters]
    predictor.dataset_json = _join_adapters(predictor, own, form.base, adapters)
    predictor.plans_manager = PlansManager(plans)
    predictor.processors = count_processors()
    network = predictor.conditioned_network
    network.cpu_bfloat16, network.half_logits = precision != "float32", True
    _share_weights(predictor)
    return LoadedModel(
        predictor,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.dataset_json,
        bank,
        _describe(files, adapters, checked.notes),
        read_calibration(files.folder, files.fold_names),
        files,
    )


def _load_folds(predictor: WindowPredictor, files: ModelFiles) -> None:
    """Let nnU-Net load the folds.

    Raises:
        ModelError: It cannot: what the files say does not fit together.
    """
    try:
        nnUNetPredictor.initialize_from_trained_model_folder(
            predictor, str(files.folder), files.fold_names, files.checkpoint
        )
    except (DuplusError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever validation left for nnU-Net and the network to find
        first = (str(error).strip().splitlines() or ["no details"])[0]
        raise ModelError(
            f"{files.folder} cannot be loaded: plans.json, dataset.json and {files.checkpoint} do not fit together "
            f"({type(error).__name__}: {first}). Export the model again."
        ) from error


def _require_hook() -> None:
    """Raise HostError if nnU-Net would not find the trainer classes of this package."""
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    if not hasattr(recursive_find_python_class, "__wrapped__"):
        raise HostError("nnU-Net is not changed for DuPLUS models. Run `duplus doctor`, and unset DUPLUS_AUTOLOAD.")


def _join_adapters(
    predictor: WindowPredictor, own: dict[str, Any], base: PlannedBase | None, adapters: list[Adapter]
) -> dict[str, Any]:
    """Attach adapters to a loaded network; returns the dataset.json with the labels of base and adapters."""
    network = predictor.conditioned_network
    axes = {network.default_adapter: predictor.allowed_mirroring_axes}
    if base is not None:
        axes[""] = base.mirroring_axes
    predictor.mirroring = {**axes, **{adapter.card.name: adapter.card.mirroring_axes for adapter in adapters}}
    if adapters:
        predictor.list_of_parameters = load_adapters(network, predictor.list_of_parameters, adapters)
    return join_labels(own, predictor.dataset_json, [adapter.card.member for adapter in adapters])


def _share_weights(predictor: WindowPredictor) -> None:
    """Hold the weights of a single fold once: nnU-Net keeps those of each fold beside the network that runs."""
    network = predictor.conditioned_network
    if len(predictor.list_of_parameters) == 1:
        network.load_state_dict(predictor.list_of_parameters[0])
        predictor.list_of_parameters = [network.state_dict()]


def _describe(files: ModelFiles, adapters: list[Adapter], notes: tuple[str, ...]) -> ModelRecord:
    names = [f"fold_{fold}/{files.checkpoint}" for fold in files.fold_names]
    checksums = {name: hash_file(files.folder / name) for name in names}
    return ModelRecord(
        files.folder.name,
        files.fold_names,
        {**checksums, **{f"adapter {adapter.card.name}": adapter.card.sha256 for adapter in adapters}},
        list_versions(),
        notes,
    )
