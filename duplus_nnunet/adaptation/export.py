"""Exports a trained adapter from its model folder: as files of its own, or as a plain model with merged weights."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.adaptation.base import read_model
from duplus_nnunet.adaptation.files import Card, write_adapter
from duplus_nnunet.adaptation.joining import keep_labels, name_adapter
from duplus_nnunet.checkpoint_files import save_checkpoint
from duplus_nnunet.errors import ModelError
from duplus_nnunet.files import open_new_file, write_text
from duplus_nnunet.networks.adaptation import (
    AdapterSpec,
    count_parameters,
    merge_adapter,
    read_checksum,
    take_adapter,
)
from duplus_nnunet.plans_form import as_form
from duplus_nnunet.plans_section import BASE_KEY, PLANS_KEY, leave_base_out
from duplus_nnunet.settings import read_settings
from duplus_nnunet.text_files import load_json

_SCORES = Path("validation", "scores.json")
# Files of a fold, beside the checkpoint, that nnU-Net's export to a zip file requires.
_BESIDE = ("progress.png", "validation/summary.json", "validation/scores.json", "validation/scores.csv")


@dataclass(frozen=True)
class Trained:
    """Result of the training of an adapter.

    Attributes:
        plans: Plans that it was trained by.
        dataset: Its dataset.json.
        spec: The parts of the adapter.
        weights: State dictionary of the network with the adapter.
        mirroring: Array axes along which it was trained with mirror images; None: none.
    """

    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    spec: AdapterSpec
    weights: Mapping[str, torch.Tensor]
    mirroring: Sequence[int] | None


def export_adapter(folder: Path, trained: Trained, scores: Mapping[str, Mapping[str, float | None]]) -> Card:
    """Write an adapter as files of its own.

    Args:
        folder: Folder to write to.
        trained: The trained adapter.
        scores: Mean Dice (0 to 1) by source and target.

    Returns:
        The adapter's card.
    """
    name, weights = trained.spec.name, trained.weights
    form = as_form(trained.plans)
    card = Card(
        name=name,
        base=form.base_model,
        checksum=read_checksum(weights, name),
        adapter=asdict(trained.spec),
        mirroring_axes=None if trained.mirroring is None else [int(axis) for axis in trained.mirroring],
        targets={key: context.trained for key, context in form.contexts.items()},
        parameters=count_parameters(weights, name),
        scores={source: dict(by_target) for source, by_target in scores.items()},
        prompts=leave_base_out(trained.plans)[PLANS_KEY],
        dataset=keep_labels(trained.dataset),
    )
    return write_adapter(folder, take_adapter(weights, name), card)


def read_scores(fold: Path) -> dict[str, dict[str, float | None]]:
    """Read mean Dice (0 to 1) by source and target of a fold's validation; empty before a validation."""
    file = fold / _SCORES
    if not file.is_file():
        return {}
    sources = load_json(file)["sources"]
    return {
        source: {target: row["dice"] for target, row in scores.get("targets", {}).items()}
        for source, scores in sources.items()
    }


@dataclass(frozen=True)
class AdaptedModel:
    """A model folder written by DuPLUSLoRATrainer, and one fold of it.

    Attributes:
        folder: The model folder.
        fold: Name of the fold.
        plans: Content of plans.json.
        dataset: Content of dataset.json.
        checkpoint: Content of the fold's checkpoint.
    """

    folder: Path
    fold: str
    plans: dict[str, Any]
    dataset: dict[str, Any]
    checkpoint: dict[str, Any]

    @property
    def trained(self) -> Trained:
        """Result of the training, from plans and weights."""
        settings, name = read_settings(self.plans), name_adapter(self.plans)
        weights: dict[str, torch.Tensor] = self.checkpoint["network_weights"]
        end = f".lora_A.{name}.weight"
        layers = tuple(key.removesuffix(end) for key in take_adapter(weights, name) if key.endswith(end))
        own, film = settings.adaptation, settings.network.film
        spec = AdapterSpec(name, own.r, own.lora_alpha, own.lora_dropout, layers, own.film and film, own.head)
        return Trained(self.plans, self.dataset, spec, weights, self.checkpoint["inference_allowed_mirroring_axes"])


def open_adapted(folder: Path, fold: str, checkpoint: Mapping[str, Any]) -> AdaptedModel:
    """Read the model folder of an adapter.

    Args:
        folder: Model folder.
        fold: Name of a fold.
        checkpoint: Content of that fold's checkpoint.

    Raises:
        ModelError: It is no model folder, or not that of an adapter.
    """
    plans, dataset = read_model(folder)
    if BASE_KEY not in plans.get(PLANS_KEY, {}):
        raise ModelError(
            f"{folder} holds no adapter: it was not trained by DuPLUSLoRATrainer. `duplus adapt list` lists adapters."
        )
    return AdaptedModel(folder, fold, plans, dataset, dict(checkpoint))


def merge_model(model: AdaptedModel, out: Path) -> Path:
    """Write a plain model, whose network has no adapter but predicts as the base with the adapter does.

    It has the adapter's contexts and targets only; those of the base are predicted by the base.

    Args:
        model: The adapter's model.
        out: Folder of the new model, to which the fold is added.

    Returns:
        The new checkpoint file.

    Raises:
        ModelError: The fold exists already, or cannot be written.
    """
    plans, trained = leave_base_out(model.plans), model.trained
    target = out / f"fold_{model.fold}" / "checkpoint_final.pth"
    if target.exists():
        raise ModelError(f"{target} exists already, and is not overwritten. Give another folder with -o.")
    arguments = {**model.checkpoint["init_args"], "plans": plans}
    merged = {
        **{key: value for key, value in model.checkpoint.items() if key != "optimizer_state"},
        "network_weights": merge_adapter(trained.weights, trained.spec),
        "trainer_name": "DuPLUSTrainer",
        "init_args": arguments,
    }
    try:
        for name, content in (("plans", plans), ("dataset", model.dataset)):
            write_text(out / f"{name}.json", json.dumps(content, indent=4))
        for source, new in _list_files(model, out):
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, new)
        with open_new_file(target) as file:
            save_checkpoint(merged, file)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"The merged model cannot be written to {out}: {error}. Free some space.") from error
    return target


def _list_files(model: AdaptedModel, out: Path) -> list[tuple[Path, Path]]:
    fold = f"fold_{model.fold}"
    names = ["dataset_fingerprint.json", *(f"{fold}/{name}" for name in _BESIDE)]
    return [(model.folder / name, out / name) for name in names if (model.folder / name).is_file()]


def find_fold(path: Path) -> tuple[Path, str | None]:
    """Split the path of a model folder, a fold in it or a file of that fold into model folder and name of the fold."""
    for folder in (path, path.parent):
        match = re.fullmatch(r"fold_(\w+)", folder.name)
        if match:
            return folder.parent, match[1]
    return path, None
