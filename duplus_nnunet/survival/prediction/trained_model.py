"""A trained prognosis, ready to foretell: in comes the folder of a DuPLUSSurvivalTrainer's model, out come its folds.

Checkpoints are read with weights_only=True. The network of a fold is built only where there are images to read.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.model import load_model
from duplus_nnunet.inference.model_folder import ModelFiles, list_folds, read_own_plans
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.networks.adaptation import AdapterSpec, attach_adapter, put_adapter
from duplus_nnunet.outputs.manifest import hash_file
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.settings import PLANS_KEY, read_settings
from duplus_nnunet.survival.imaging.image_features import FeatureReader, HostModel
from duplus_nnunet.survival.models.model import SurvivalModel
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.training.checkpoint import VERSION
from duplus_nnunet.trainers.checkpoint import SURVIVAL_KEY, read_checkpoint

CHECKPOINT_NAME = "checkpoint_final.pth"
_ADVICE = "Give the folder of a model that DuPLUSSurvivalTrainer trained, with plans.json and fold_X (-m)"


@dataclass(frozen=True)
class PrognosisFold:
    """What was learned in a fold.

    Attributes:
        name: As nnU-Net names it: a number, or "all".
        model: Fitted on the fold's training patients.
        lesions: Targets that are lesions, by context.
        lora: Specification and weights of the LoRA that its features need; None: they are the base's own.
        patients: Whom it was fitted on.
        notes: What a reader has to know of the training.
        checksum: SHA-256 of its checkpoint.
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
    """All folds of a model that are to be averaged.

    Attributes:
        folder: Where it is.
        folds: One or more.
    """

    folder: Path
    folds: tuple[PrognosisFold, ...]

    @property
    def schema(self) -> ClinicalSchema:
        """What the columns of a clinical table mean; all folds have the same."""
        return self.folds[0].model.schema

    @property
    def models(self) -> list[SurvivalModel]:
        """The fitted model of each fold."""
        return [fold.model for fold in self.folds]


def read_model(folder: Path, folds: Sequence[str] | None = None) -> PrognosisModel:
    """Read the folds of a model folder.

    Args:
        folder: With plans.json and fold_X.
        folds: As nnU-Net names them; None: all whose training is finished.

    Raises:
        ModelError: It is no model folder of a prognosis, a fold is missing or not finished, or folds were trained with
            different schemas.
    """
    if PLANS_KEY not in read_own_plans(folder):
        raise ModelError(f"{folder} is no DuPLUS model's folder. {_ADVICE}.")
    there = list_folds(folder, None, CHECKPOINT_NAME)
    wanted = tuple(dict.fromkeys(folds)) if folds else there
    absent = [name for name in wanted if name not in there]
    if absent or not wanted:
        found = ", ".join(there) or "none"
        raise ModelError(
            f"{folder} has no fold_{absent[0] if absent else 'X'}/{CHECKPOINT_NAME}; finished folds: {found} (--fold)."
        )
    read = tuple(_read_fold(folder, name) for name in wanted)
    differing = [fold.name for fold in read if fold.model.schema != read[0].model.schema]
    if differing:
        raise ModelError(
            f"Fold {differing[0]} of {folder} was trained with another clinical.yaml than fold {read[0].name}. Choose "
            "folds of one schema (--fold), or train the others anew."
        )
    return PrognosisModel(folder, read)


def _read_fold(folder: Path, name: str) -> PrognosisFold:
    file = folder / f"fold_{name}" / CHECKPOINT_NAME
    state = read_checkpoint(file).get(SURVIVAL_KEY)
    if not isinstance(state, dict):
        raise ModelError(f"{file} holds no prognosis: it is a segmentation model's. {_ADVICE}.")
    if state.get("version") != VERSION or state.get("model") is None:
        raise ModelError(
            f"{file} holds no finished prognosis of version {VERSION} (found {state.get('version')!r}). Finish its "
            "training with --c, or use the package that trained it."
        )
    return PrognosisFold(
        name, SurvivalModel.from_plain(state["model"]),
        {context: tuple(names) for context, names in state["lesions"].items()},
        state["lora"] if state["kept"] else None,
        frozenset(state["patients"]), tuple(state["notes"]), hash_file(file),
    )  # fmt: skip


def read_bank(folder: Path) -> PromptBank:
    """Read a model's prompts."""
    return PromptBank(read_own_plans(folder))


def open_reader(folder: Path, fold: PrognosisFold, device: torch.device) -> FeatureReader:
    """Build the network of a fold, which sees images as it did in training.

    Args:
        folder: The model's.
        fold: Of which.
        device: Where it runs.

    Raises:
        ModelError: The folder is incomplete.
        HostError: nnU-Net was not changed by the start-up hook.
    """
    predictor = WindowPredictor(perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False)
    with contextlib.redirect_stdout(io.StringIO()):
        model = load_model(predictor, ModelFiles(folder, (fold.name,), CHECKPOINT_NAME), "float32", masks=False)
    network, plans = model.network, model.plans
    # As in training: a prediction of masks may round more than what the prognosis was fitted on.
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
