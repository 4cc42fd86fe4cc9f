"""Continues a training: checks its checkpoint, compares plans with those of then, and describes plans for the log."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.checkpoint_files import read_checkpoint
from duplus_nnunet.errors import ModelError, PlansError
from duplus_nnunet.model_form import shorten
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.plans_section import PLANS_KEY, SETTINGS_VERSION_KEY, find_differences
from duplus_nnunet.settings import Settings, read_settings
from duplus_nnunet.trainers.checkpoint import require_embedding
from duplus_nnunet.trainers.training_cases import TrainingCases, find_training_cases

_SHOWN = 12
# In torch's messages on an optimizer whose groups of weights are others.
_GROUPS = "parameter group"
# Keys of plans that say nothing about how a model is trained.
_UNCOMPARED = ("continue_training", "plans_name", "dataset_name", "configurations")


def meet_checkpoint(trainer: Any, source: str | os.PathLike[str]) -> None:
    """Check the checkpoint that a training continues from, and report in its log what has changed in the plans since.

    Args:
        trainer: The DuPLUSTrainer; it is given the training cases so far.
        source: The checkpoint.

    Raises:
        ModelError: It is damaged, may be malicious, or was trained on other embeddings than those in the plans.
        DataError: Its list of training cases cannot be read.
    """
    checkpoint, file = read_checkpoint(source), Path(source)
    require_embedding(checkpoint["network_weights"], trainer.bank.embedding, file)
    cases = find_training_cases(checkpoint, file.parent)
    trainer.training_cases = cases if isinstance(cases, TrainingCases) else None
    report_changes(trainer, checkpoint)


def report_changes(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Report in the log of a training what has changed in its plans since its checkpoint was written."""
    arguments = checkpoint.get("init_args")
    before = arguments.get("plans") if isinstance(arguments, Mapping) else None
    if isinstance(before, Mapping):
        changes = list_changes(before, trainer.plans_manager.plans, trainer.configuration_name)
        if changes:
            trainer.print_to_log_file(describe_changes(changes))


@contextmanager
def refuse_misfit(source: object) -> Iterator[None]:
    """Turn the errors of a checkpoint that does not fit network and optimiser into a message.

    Raises:
        ModelError: It does not fit.
    """
    try:
        yield
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
        if _GROUPS in str(error):
            raise ModelError(
                f"The checkpoint {source} trained other groups of weights than the plans ask for: one of settings."
                "frozen_encoder_epochs, frozen_decoder_epochs, text_adapter.enabled and the learning_rate_factor of an "
                "adapter changed after the training began. Restore it, or train without --c."
            ) from error
        lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
        first = (lines[1:] or lines)[0].rstrip(".")  # torch lists the differences below a title
        raise ModelError(
            f"The checkpoint {source} does not fit the network of the plans: {first}. The plans changed after the "
            "training began: restore those of the model folder, or train without --c."
        ) from error


def require_optimizer(optimizer: torch.optim.Optimizer, source: object) -> None:
    """Check, after a checkpoint was loaded, that its optimizer was of the kind that continues it.

    Raises:
        ModelError: One is AdamW, and the other is SGD.
    """
    ours = "betas" in optimizer.defaults
    if any(("betas" in group) != ours for group in optimizer.param_groups):
        theirs, own = ("sgd", "adamw") if ours else ("adamw", "sgd")
        raise ModelError(
            f"The training of {source} used settings.optimizer {theirs!r}, and the plans have {own!r}. Write "
            f'"optimizer": "{theirs}" into duplus.settings of the plans, or train without --c.'
        )


def list_changes(before: Mapping[str, Any], now: Mapping[str, Any], configuration: str) -> list[str]:
    """List what differs between two plans for the training of a configuration.

    Args:
        before: Content of the plans that a checkpoint was trained by.
        now: Content of the present plans.
        configuration: Name of the configuration.

    Returns:
        A text for each difference: the key, the value before and the value now.
    """
    pairs = [
        [plans.get("configurations", {}).get(configuration, {}) for plans in (before, now)],
        [_complete(plans) for plans in (before, now)],
    ]
    return [change for old, new in pairs for change in _describe(old, new, "{} {} -> {}")]


def _complete(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Return what says how a model is trained, with all settings as the version that wrote them meant them."""
    content = {key: value for key, value in plans.items() if key not in _UNCOMPARED}
    with suppress(PlansError):  # settings of another version are compared as they are
        settings = read_settings(plans).to_dict()
        section = {key: value for key, value in content[PLANS_KEY].items() if key != SETTINGS_VERSION_KEY}
        content[PLANS_KEY] = {**section, "settings": settings}
    return content


def _describe(before: Any, now: Any, text: str) -> list[str]:
    return [text.format(name, shorten(old), shorten(new)) for name, old, new in find_differences(before, now)]


def describe_changes(changes: list[str]) -> str:
    """Describe changes of the plans since a checkpoint was written, for the log of the training that continues it."""
    return (
        "WARNING: the plans have changed since the checkpoint was written, and the training continues with the new "
        f"ones: {join_changes(changes)}. Restore the plans if that is not intended."
    )


def join_changes(changes: list[str]) -> str:
    """Join changes to a text; of many, the first are named and the others counted."""
    more = f" (and {len(changes) - _SHOWN} more)" if len(changes) > _SHOWN else ""
    return f"{'; '.join(changes[:_SHOWN])}{more}"


def describe_plans(plans: Mapping[str, Any], configuration: str, folder: object) -> str:
    """Summarise the plans of a training in a few lines.

    Args:
        plans: Content of the plans.
        configuration: Name of the trained configuration.
        folder: Model folder, whose plans.json has all of it.
    """
    form, chosen = as_form(plans), plans["configurations"][configuration]
    architecture = chosen.get("architecture", {})
    network = str(architecture.get("network_class_name", "?")).rpartition(".")[2]
    stages = architecture.get("arch_kwargs", {}).get("n_stages", "?")
    patch = " x ".join(map(str, chosen["patch_size"]))
    spacing = " x ".join(f"{width:.4g}" for width in chosen.get("spacing", ()))
    schemes = ", ".join(chosen.get("normalization_schemes", ()))
    differences = _describe(read_settings(plans).to_dict(), Settings().to_dict(), "{} {} instead of {}")
    settings = ", ".join(differences) or "none"
    prompts = [f"{name} ({context.sentences[0]!r})" for name, context in form.contexts.items()]
    more = f" and {len(prompts) - _SHOWN} more" if len(prompts) > _SHOWN else ""
    lines = (
        f"configuration {configuration}: patches of {patch} voxels, batch size {chosen.get('batch_size')}, spacing "
        f"{spacing} mm, {schemes}; {network} with {stages} stages",
        f"plans {plans.get('plans_name')!r} of {plans.get('dataset_name')}: {len(form.targets)} targets: "
        f"{', '.join(target.name for target in form.targets)}",
        f"{len(prompts)} context(s): {', '.join(prompts[:_SHOWN])}{more}",
        f"settings ({PLANS_KEY}.settings) other than the defaults: {settings}",
        f"all of it: {folder}/plans.json",
    )
    return "\n".join(lines)
