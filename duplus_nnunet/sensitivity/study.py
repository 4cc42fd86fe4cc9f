"""Measures how the wording of a prompt changes the Dice score, for every target of a model."""

import itertools
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from tqdm import tqdm

from duplus_nnunet.errors import ModelError
from duplus_nnunet.inference.groups import is_quicker
from duplus_nnunet.inference.images import check_finite
from duplus_nnunet.inference.kept_maps import KeptMaps
from duplus_nnunet.inference.model import LoadedModel, load_model
from duplus_nnunet.inference.model_folder import ModelFiles, read_own_plans
from duplus_nnunet.inference.windows import WindowPredictor
from duplus_nnunet.networks import Prompts
from duplus_nnunet.planners.context_plans import configure
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.reporting.folds import list_trained_folds
from duplus_nnunet.sensitivity.cases import LabelledCase, find_cases, read_image, read_truth
from duplus_nnunet.sensitivity.wordings import Kind, Score, TargetScores, Wording, list_wordings, plan_passes

# Bytes per voxel and wording: the float16 sum over windows, and a copy while folds are summed.
_BYTES_MAP = 4
# Bytes per voxel of a window and wording: float32 logits, mirrored, and weighted.
_BYTES_WINDOW = 12


@dataclass(frozen=True)
class SensitivityRequest:
    """Model, cases and prompts of a sensitivity study.

    Attributes:
        model: Model folder.
        images: One file per channel, or one folder.
        label: Label map, or a folder of label maps.
        folds: Names of folds, as in nnU-Net; None for all available folds.
        checkpoint: File name of the checkpoints.
        context: Context as typed by the user; None for the default of the model.
        targets: Targets as typed by the user; empty for all.
        with_contexts: Whether to vary the context prompt as well.
    """

    model: str
    images: tuple[str, ...]
    label: str
    folds: tuple[str, ...] | None = None
    checkpoint: str = "checkpoint_final.pth"
    context: str | None = None
    targets: tuple[str, ...] = ()
    with_contexts: bool = False


@dataclass(frozen=True)
class MeasurementSettings:
    """Prediction settings of a sensitivity study.

    Attributes:
        device: "cpu", "cuda" or "mps".
        step_size: Step of nnU-Net's sliding window, as a fraction of the patch size.
        mirror: Whether to use test-time mirroring.
        memory: Memory limit for the logits of one pass, in GiB.
        progress: Whether to show progress bars.
    """

    device: str = "cpu"
    step_size: float = 0.5
    mirror: bool = True
    memory: float = 4.0
    progress: bool = False


@dataclass(frozen=True)
class SensitivityReport:
    """Result of a sensitivity study.

    Attributes:
        context: Key of the context.
        context_prompt: Its default context prompt.
        cases: Names of the cases.
        targets: Scores of each target by the wordings of its target prompt.
        contexts: Scores of each target by the wordings of the context prompt; empty if it was not varied.
    """

    context: str
    context_prompt: str
    cases: tuple[str, ...]
    targets: tuple[TargetScores, ...]
    contexts: tuple[TargetScores, ...] = ()


def measure_sensitivity(question: SensitivityRequest, means: MeasurementSettings) -> SensitivityReport:
    """Score every wording of the targets on the cases.

    Raises:
        DuplusError: The model, the cases, the context or the targets cannot be used.
    """
    plans = read_own_plans(question.model)
    if PLANS_KEY not in plans:
        raise ModelError(
            f"{question.model} is not the folder of a DuPLUS model: its plans have no prompts to vary. Give a model "
            "trained with -tr DuPLUSTrainer -p DuPLUSPlans with -m."
        )
    bank = PromptBank(plans)
    context = bank.find_context(question.context)
    names = bank.find_targets(question.targets) if question.targets else bank.names
    wordings = list_wordings(bank, context, names, question.with_contexts)
    declared = read_dataset_json(Path(question.model) / "dataset.json")
    labels = declared["labels"]
    cases = find_cases(question.images, question.label, declared["file_ending"])
    folds = question.folds or find_folds(question.model, question.checkpoint)
    model = _load(question, folds, means)
    sys.stdout.write(f"There are {len(cases)} cases to score.\n")
    values = {target.name: labels[target.label] for target in bank.targets}
    by_case = {case.name: _score_case(model, context, case, wordings, values, means) for case in cases}
    scores = [Score(wording, {name: by[wording] for name, by in by_case.items()}) for wording in wordings]
    return _summarise(bank, context, names, scores, values)


def compute_dice(mask: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """Compute the Dice of a mask, 0 to 1, higher is better; NaN if the reference is empty.

    Example:
        >>> compute_dice(np.array([True, True, False]), np.array([True, False, False]))
        0.6666666666666666
    """
    if not truth.any():
        return math.nan
    return float(2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth)))


def find_folds(model: str, checkpoint: str) -> tuple[str, ...]:
    """List the folds of a model that have a checkpoint; "all" only if there is no other fold.

    Raises:
        ModelError: No fold has the checkpoint.
    """
    folds = list_trained_folds(Path(model), checkpoint)
    if not folds:
        available = sorted({file.name for file in Path(model).glob("fold_*/*.pth")})
        raise ModelError(
            f"No fold in {model} has {checkpoint}. Available checkpoints: {', '.join(available) or 'none'}. Choose one "
            "with -chk, or finish the training."
        )
    return tuple(fold for fold in folds if fold != "all") or ("all",)


def _load(question: SensitivityRequest, folds: Sequence[str], means: MeasurementSettings) -> LoadedModel:
    """Load the model, whatever the environment variables of predictions are."""
    predictor = WindowPredictor(
        tile_step_size=means.step_size,
        use_mirroring=means.mirror,
        device=torch.device(means.device),
        allow_tqdm=means.progress,
    )
    return load_model(predictor, ModelFiles(Path(question.model), tuple(folds), question.checkpoint))


def _score_case(
    model: LoadedModel,
    context: str,
    case: LabelledCase,
    wordings: Sequence[Wording],
    values: dict[str, Any],
    means: MeasurementSettings,
) -> dict[Wording, float]:
    """Score all wordings on one case."""
    plans, configuration, declared = (
        model.plans,
        configure(model.configuration, model.bank.form, context),
        model.dataset_json,
    )
    reader = plans.image_reader_writer_class()
    image, properties = read_image(reader, case)
    truth = read_truth(reader, case, properties, image.shape[1:])
    preprocessor = configuration.preprocessor_class(verbose=False)
    preprocessor.context = context
    data, _, properties = preprocessor.run_case_npy(image, None, properties, plans, configuration, declared)
    preprocessed = torch.from_numpy(data).float()
    check_finite(preprocessed)
    rounds = _plan_rounds(model, preprocessed.shape[1:], wordings, int(means.memory * 2**30), configuration.patch_size)
    passes, index = sum(len(one.groups) for one in rounds), 0
    dice: dict[Wording, float] = {}
    for one in rounds:
        maps = KeptMaps(one.kept, uses_file=False) if one.kept else None
        for chosen in one.groups:
            index += 1
            title = f"{case.name}, pass {index} of {passes}"
            if means.progress:
                tqdm.write(f"{title}: predicting", file=sys.stderr)
            logits = _predict(model, preprocessed, chosen, maps)
            bar = tqdm(chosen, desc=f"{title}: scoring", unit="wording", disable=not means.progress)
            masks = (_take_mask(plans, configuration, logits[row : row + 1], properties) for row in range(len(chosen)))
            dice |= _score_masks(zip(bar, masks, strict=True), truth, values, labels=declared["labels"])
    return dice


@dataclass(frozen=True)
class _Round:
    """Wordings with the same context prompt.

    Attributes:
        groups: Those that are predicted together.
        kept: Bytes for what the network computed of the image, so that it is called for the first group alone; 0: it is
            called for each.
    """

    groups: list[list[Wording]]
    kept: int


def _plan_rounds(
    model: LoadedModel, shape: Sequence[int], wordings: Sequence[Wording], limit: int, patch: Sequence[int]
) -> list[_Round]:
    """Group wordings so that they fit a memory limit in bytes, and the network is called as rarely as possible."""
    each, rounds = _BYTES_MAP * math.prod(shape) + _BYTES_WINDOW * math.prod(patch), []
    for _, same in itertools.groupby(wordings, key=lambda wording: wording.context_prompt):
        own = list(same)
        plain = list(plan_passes(own, limit // each))
        predictor = model.predictor
        kept = predictor.measure_calls(shape, _compose(model, own)) if predictor.keeps_calls else 0
        room = (limit - kept) // each
        groups = list(plan_passes(own, room)) if kept and room > 0 else []
        rounds.append(_Round(groups, kept) if groups and is_quicker(len(groups), len(plain)) else _Round(plain, 0))
    return rounds


def _compose(model: LoadedModel, wordings: Sequence[Wording]) -> Prompts:
    pairs = [(wording.target_prompt, wording.target) for wording in wordings]
    return model.bank.compose(wordings[0].context_prompt, pairs)


def _predict(
    model: LoadedModel, data: torch.Tensor, wordings: Sequence[Wording], maps: KeptMaps | None = None
) -> torch.Tensor:
    """Predict logits (K wordings, D, H, W) by nnU-Net's sliding window, averaged over folds.

    Args:
        model: The model.
        data: Preprocessed image, (C, D, H, W).
        wordings: With the same context prompt.
        maps: What the network computed of this image in this context; it is used, and added to by the first call.
    """
    prompts = _compose(model, wordings)
    if maps is not None and maps.uncompressed:
        return model.predictor.predict_kept(data, prompts, maps)
    return model.predictor.predict_logits(data, prompts, maps)


def _take_mask(
    plans: PlansManager, configuration: ConfigurationManager, logits: torch.Tensor, properties: dict[str, Any]
) -> np.ndarray[Any, Any]:
    """Resample the logits of one wording to the image's grid; True where the probability is above 0.5."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    alone = plans.get_label_manager({"labels": {"background": 0, "target": 1}})
    mask = convert_predicted_logits_to_segmentation_with_correct_shape(logits, plans, configuration, alone, properties)
    return np.asarray(mask) > 0


def _score_masks(
    pairs: Iterable[tuple[Wording, np.ndarray[Any, Any]]],
    truth: np.ndarray[Any, Any],
    values: dict[str, Any],
    labels: dict[str, Any],
) -> dict[Wording, float]:
    """Compute the Dice of masks, excluding voxels with the ignore label."""
    valid = truth != labels["ignore"] if "ignore" in labels else np.ones(truth.shape, dtype=bool)
    return {
        wording: compute_dice(mask & valid, np.isin(truth, np.ravel(values[wording.target])) & valid)
        for wording, mask in pairs
    }


def _summarise(
    bank: PromptBank, context: str, names: Sequence[str], scores: Sequence[Score], values: dict[str, Any]
) -> SensitivityReport:
    def gather(name: str, kinds: Collection[Kind]) -> TargetScores:
        selection = (score for score in scores if score.wording.target == name and score.wording.kind in kinds)
        return TargetScores(name, values[name], tuple(selection))

    varied = any(score.wording.kind == "context paraphrase" for score in scores)
    default = [
        Score(replace(score.wording, kind="context prompt"), score.by_case)
        for score in scores
        if score.wording.kind == "target prompt"
    ]
    scores = [*default, *scores]
    return SensitivityReport(
        context,
        bank.contexts[context].sentences[0],
        tuple(scores[0].by_case),
        tuple(gather(name, ("target prompt", "synonym", "paraphrase")) for name in names),
        tuple(gather(name, ("context prompt", "context paraphrase")) for name in names) if varied else (),
    )
