"""Reads the trained survival model of a model folder, and builds the networks of its folds where there are images.

Checkpoints are loaded with weights_only=True.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.model import load_model
from duplus_nnunet.inference.model_folder import ModelFiles, list_folds, read_own_plans
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.networks.adaptation import AdapterSpec, attach_adapter, put_adapter
from duplus_nnunet.outputs.manifest import hash_file
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.settings import read_settings
from duplus_nnunet.survival.imaging.image_features import FeatureReader, HostModel
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.training.checkpoint import VERSION
from duplus_nnunet.trainers.checkpoint import SURVIVAL_KEY

CHECKPOINT_NAME = "checkpoint_final.pth"
_ADVICE = "Give a model folder of DuPLUSSurvivalTrainer, with plans.json and fold_X (-m)"


@dataclass(frozen=True)
class PrognosisFold:
    """Trained survival model of a fold.

    Attributes:
        name: nnU-Net's name of the fold: a number, or "all".
        model: Model fitted on the training patients of the fold.
        lesions: Targets that are lesions, by context.
        lora: Specification and weights of the LoRA that computes its image features; None: the base does.
        patients: IDs of the training patients.
        notes: Remarks on the training for the reader.
        checksum: SHA-256 of the checkpoint.
    """

    name: str
    model: SurvivalModel
    lesions: dict[str, tuple[str, ...]]
    lora: dict[str, Any] | None
    patients: frozenset[str]
    notes: tuple[str, ...]
    checksum: str


@dataclass(frozen=True)
class PrognosisModel:
    """Trained survival model: the folds whose predictions are averaged.

    Attributes:
        folder: Model folder.
        folds: One or more folds.
    """

    folder: Path
    folds: tuple[PrognosisFold, ...]

    @property
    def schema(self) -> ClinicalSchema:
        """Schema of the clinical table, the same for all folds."""
        return self.folds[0].model.schema

    @property
    def models(self) -> list[SurvivalModel]:
        """The fitted model of each fold."""
        return [fold.model for fold in self.folds]


def read_trained_model(folder: Path, folds: Sequence[str] | None = None) -> PrognosisModel:
    """Read the folds of a model folder.

    Args:
        folder: Model folder, with plans.json and fold_X.
        folds: nnU-Net's names of the folds; None: all finished folds.

    Raises:
        ModelError: It is not a model folder of DuPLUSSurvivalTrainer, a fold is missing or unfinished, or folds were
            trained with different schemas.
    """
    if PLANS_KEY not in read_own_plans(folder):
        raise ModelError(f"{folder} is not a folder of a DuPLUS model. {_ADVICE}.")
    available = list_folds(folder, None, CHECKPOINT_NAME)
    chosen = tuple(dict.fromkeys(folds)) if folds else available
    missing = [name for name in chosen if name not in available]
    if missing or not chosen:
        finished = ", ".join(available) or "none"
        raise ModelError(
            f"{folder} has no fold_{missing[0] if missing else 'X'}/{CHECKPOINT_NAME}; finished folds: {finished} "
            "(--fold)."
        )
    read = tuple(_read_fold(folder, name) for name in chosen)
    differing = [fold.name for fold in read if fold.model.schema != read[0].model.schema]
    if differing:
        raise ModelError(
            f"Fold {differing[0]} of {folder} was trained with another clinical.yaml than fold {read[0].name}. Choose "
            "folds with the same schema (--fold), or retrain the others."
        )
    return PrognosisModel(folder, read)


def _read_fold(folder: Path, name: str) -> PrognosisFold:
    file = folder / f"fold_{name}" / CHECKPOINT_NAME
    state = read_checkpoint(file).get(SURVIVAL_KEY)
    if not isinstance(state, dict):
        raise ModelError(f"{file} has no survival model: it is a checkpoint of a segmentation model. {_ADVICE}.")
    if state.get("version") != VERSION or state.get("model") is None:
        raise ModelError(
            f"{file} has no finished survival model of version {VERSION} (found version {state.get('version')!r}). "
            "Finish its training with --c, or use the version of the package that trained it."
        )
    return PrognosisFold(
        name, SurvivalModel.from_plain(state["model"]),
        {context: tuple(names) for context, names in state["lesions"].items()},
        state["lora"] if state["kept"] else None,
        frozenset(state["patients"]), tuple(state["notes"]), hash_file(file),
    )  # fmt: skip


def read_bank(folder: Path) -> PromptBank:
    """Read the prompts of a model."""
    return PromptBank(read_own_plans(folder))


def open_reader(folder: Path, fold: PrognosisFold, device: torch.device) -> FeatureReader:
    """Build the network of a fold, which computes image features as in training.

    Args:
        folder: Model folder.
        fold: The fold.
        device: Device of the network.

    Raises:
        ModelError: The folder is incomplete.
        HostError: The start-up hook did not extend nnU-Net.
    """
    predictor = WindowPredictor(perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False)
    with contextlib.redirect_stdout(io.StringIO()):
        model = load_model(predictor, ModelFiles(folder, (fold.name,), CHECKPOINT_NAME), "float32", masks=False)
    network, plans = model.network, model.plans
    # As in training: predictions of masks may use lower precision than the features the model was fitted on.
    network.cpu_bfloat16, network.half_logits = read_settings(plans.plans).cpu_bfloat16, False
    adapter = ""
    if fold.lora is not None:
        spec = AdapterSpec(**{**fold.lora["spec"], "layers": tuple(fold.lora["spec"]["layers"])})
        attach_adapter(network, spec)
        put_adapter(network, fold.lora["weights"], spec.name)
        adapter = spec.name
    network.requires_grad_(False).eval().to(device)
    declared = read_dataset_json(folder / "dataset.json")
    host = HostModel(plans, model.configuration, declared, device)
    return FeatureReader(network, host, model.bank, fold.lesions, adapter)
