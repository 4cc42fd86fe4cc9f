"""What a run was: in come a bound predictor and its options, out comes the part of the manifest that cases share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.inference.mirroring import find_network
from duplus_nnunet.networks.precision import has_bfloat16
from duplus_nnunet.outputs.manifest import Manifest, RunRecord, hash_file, list_versions
from duplus_nnunet.reporting.folds import list_trained_folds
from duplus_nnunet.reporting.presence import PresenceCalibration
from duplus_nnunet.reporting.presence_files import read_calibration

# What makes finished cases of another run worthless for this one.
_DECISIVE = ("model", "checkpoints", "folds", "precision", "contexts", "targets", "free_texts", "options")
# Of a table of jobs, each case has its own, which its record holds.
_PROMPTS = ("contexts", "targets", "free_texts")
_HARMLESS_OPTIONS = ("memory", "jobs")


@dataclass(frozen=True)
class LoadedModel:
    """Where a predictor's model came from.

    Attributes:
        name: Of the model's folder.
        folds: As nnU-Net names them.
        checkpoints: SHA-256 by path within the folder.
        versions: Of the programs that loaded it.
        calibration: What its validations say of the presence of targets.
    """

    name: str
    folds: tuple[str, ...]
    checkpoints: Mapping[str, str]
    versions: Mapping[str, str]
    calibration: PresenceCalibration


def list_folds(folder: Path, folds: Any, checkpoint: str) -> tuple[str, ...]:
    """List the folds that nnU-Net is told to use, by name; None are all that have the checkpoint."""
    if folds is None:
        return list_trained_folds(folder, checkpoint)
    return tuple(str(fold) for fold in ([folds] if isinstance(folds, (str, int)) else folds))


def describe_model(folder: Path, folds: Sequence[str], checkpoint: str) -> LoadedModel:
    """Describe the model in a folder, as it is loaded now."""
    files = [f"fold_{fold}/{checkpoint}" for fold in folds]
    return LoadedModel(
        folder.name,
        tuple(folds),
        {file: hash_file(folder / file) for file in files},
        list_versions(),
        read_calibration(folder, folds),
    )


def describe_run(predictor: Any, options: Mapping[str, Any]) -> RunRecord:
    """Describe what a bound predictor is asked for."""
    binding, model = predictor.duplus_binding, predictor.duplus_model
    questions = list(binding.questions.values())
    new = binding.first.reading.new
    return RunRecord(
        model=model.name,
        checkpoints=model.checkpoints,
        folds=model.folds,
        contexts={question.context: binding.context_sentence(question) for question in questions},
        targets={question.context: dict(binding.list_asked(question)) for question in questions},
        free_texts=tuple(target.text for target in new),
        options={
            **options,
            "step_size": predictor.tile_step_size,
            "mirroring": list(predictor.allowed_mirroring_axes or ()) if predictor.use_mirroring else [],
        },
        device=_say_device(predictor.device),
        threads=torch.get_num_threads() if predictor.device.type == "cpu" else None,
        precision=_say_precision(predictor),
        versions=model.versions,
        notes=model.calibration.notes,
    )


def join_runs(before: RunRecord, now: RunRecord) -> RunRecord:
    """Put together what two groups of jobs ask for."""
    contexts = {*before.targets, *now.targets}
    return replace(
        now,
        contexts={**before.contexts, **now.contexts},
        targets={name: {**before.targets.get(name, {}), **now.targets.get(name, {})} for name in sorted(contexts)},
        free_texts=tuple(dict.fromkeys((*before.free_texts, *now.free_texts))),
    )


def find_decisive_changes(before: Manifest, now: RunRecord) -> tuple[str, ...]:
    """Name what differs from a finished run so much that its cases are of no use for another one."""
    by_job = bool(now.options.get("jobs"))

    def strip(run: RunRecord) -> RunRecord:
        return replace(run, options={key: run.options[key] for key in run.options if key not in _HARMLESS_OPTIONS})

    found = Manifest(strip(before.run)).find_changes(strip(now))
    return tuple(name for name in found if name in _DECISIVE and not (by_job and name in _PROMPTS))


def _say_device(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _say_precision(predictor: Any) -> str:
    if predictor.device.type == "cuda":
        return "float16"
    network = find_network(predictor)
    mixed = network is not None and network.cpu_bfloat16 and predictor.device.type == "cpu" and has_bfloat16()
    return "bfloat16" if mixed else "float32"
