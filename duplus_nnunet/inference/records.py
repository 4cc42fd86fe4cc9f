"""Describes a prediction run for the manifest, and compares it with the run that wrote a folder."""

import os
from collections.abc import Collection
from dataclasses import asdict, replace

import torch

from duplus_nnunet.inference.binding import BoundModel
from duplus_nnunet.inference.model import LoadedModel
from duplus_nnunet.networks.precision import has_bfloat16
from duplus_nnunet.outputs.manifest import Manifest, RunRecord

# Differences that make the finished cases of another run useless for this one.
_DECISIVE = ("model", "checkpoints", "folds", "precision", "contexts", "targets", "free_texts", "options")
# In a table of jobs each case has its own, which its record holds.
_PROMPTS = ("contexts", "targets", "free_texts")
_HARMLESS_OPTIONS = ("memory", "jobs")
# Options that say nothing about the files.
# A pattern of descriptions may name a patient.
_UNRECORDED_OPTIONS = ("verify", "series", "keep_ids", "dicom_source")
# What manifests stand for that were written before these options.
_FORMER_OPTIONS = {
    "rivals": "asked",
    "prompt_priority": "probability",
    "keep_largest": (),
    "remove_small": (),
    "output_format": (),
}


def describe_run(bound: BoundModel) -> RunRecord:
    """Describe what a model is asked for."""
    model, predictor, questions = bound.model, bound.model.predictor, list(bound.questions.values())
    return RunRecord(
        model=model.record.name,
        checkpoints=model.record.checkpoints,
        folds=model.record.folds,
        contexts={question.context: bound.context_sentence(question) for question in questions},
        targets={question.context: dict(bound.list_asked(question)) for question in questions},
        free_texts=tuple(target.text for target in bound.first.reading.new),
        options={
            **{name: value for name, value in asdict(bound.options).items() if name not in _UNRECORDED_OPTIONS},
            # Without its folder, which may be named by a patient.
            "jobs": None if bound.options.jobs is None else os.path.basename(bound.options.jobs),
            "step_size": predictor.tile_step_size,
            "mirroring": list(predictor.allowed_mirroring_axes or ()) if predictor.use_mirroring else [],
        },
        device=_describe_device(predictor.device),
        threads=torch.get_num_threads() if predictor.device.type == "cpu" else None,
        precision=_describe_precision(model),
        versions=model.record.versions,
        notes=(*model.record.notes, *model.calibration.notes),
    )


def join_runs(before: RunRecord, now: RunRecord) -> RunRecord:
    """Join the descriptions of two groups of jobs."""
    contexts = {*before.targets, *now.targets}
    return replace(
        now,
        contexts={**before.contexts, **now.contexts},
        targets={name: {**before.targets.get(name, {}), **now.targets.get(name, {})} for name in sorted(contexts)},
        free_texts=tuple(dict.fromkeys((*before.free_texts, *now.free_texts))),
    )


def list_idle_options(bound: BoundModel) -> tuple[str, ...]:
    """List the options that do not change what this model is asked for."""
    idle = []
    if bound.options.rivals == "all" and not any(question.rivals for question in bound.questions.values()):
        idle.append("rivals")
    if not bound.first.reading.new:
        idle.append("prompt_priority")
    return tuple(idle)


def find_decisive_changes(before: Manifest, now: RunRecord, idle: Collection[str] = ()) -> tuple[str, ...]:
    """List the fields that differ from a finished run in such a way that its cases cannot be kept.

    Args:
        before: The manifest of that run.
        now: The run that would continue it.
        idle: Options that change nothing now; see `list_idle_options`.
    """
    by_job = bool(now.options.get("jobs"))

    def strip(run: RunRecord) -> RunRecord:
        options = {**_FORMER_OPTIONS, **run.options}
        return replace(run, options={key: options[key] for key in options if key not in {*_HARMLESS_OPTIONS, *idle}})

    changes = Manifest(strip(before.run)).find_changes(strip(now))
    return tuple(name for name in changes if name in _DECISIVE and not (by_job and name in _PROMPTS))


def _describe_device(device: torch.device) -> str:
    # A process that only gives cases to workers needs no GPU itself.
    known = device.type == "cuda" and torch.cuda.is_available()
    return f"{device} ({torch.cuda.get_device_name(device)})" if known else str(device)


def _describe_precision(model: LoadedModel) -> str:
    device = model.predictor.device
    if device.type == "cuda":
        return "float16"
    mixed = model.network.cpu_bfloat16 and device.type == "cpu" and has_bfloat16()
    return "bfloat16" if mixed else "float32"
