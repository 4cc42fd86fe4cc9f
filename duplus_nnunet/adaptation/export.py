"""What a trained adapter's model folder is made into: an adapter by itself, or a plain model of merged weights."""

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
from duplus_nnunet.errors import ModelError
from duplus_nnunet.networks.adaptation import (
    AdapterSpec,
    count_parameters,
    merge_adapter,
    read_checksum,
    take_adapter,
)
from duplus_nnunet.outputs.files import open_new_file, write_text
from duplus_nnunet.settings import BASE_KEY, PLANS_KEY, leave_base_out, read_settings

_SCORES = Path("validation", "scores.json")
# Beside the checkpoint, what nnU-Net's export to a zip file asks for.
_BESIDE = ("progress.png", "validation/summary.json", "validation/scores.json", "validation/scores.csv")


@dataclass(frozen=True)
class Trained:
    """What a training of an adapter came to.

    Attributes:
        plans: Those that it was trained by.
        dataset: The dataset.json that it was trained by.
        spec: What the adapter consists of.
        weights: State dictionary of the network with the adapter.
        mirroring: Array axes along which it saw mirror images; None: none.
    """

    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    spec: AdapterSpec
    weights: Mapping[str, torch.Tensor]
    mirroring: Sequence[int] | None


def export_adapter(folder: Path, trained: Trained, scores: Mapping[str, Mapping[str, float | None]]) -> Card:
    """Write an adapter by itself.

    Args:
        folder: Where to.
        trained: What it is.
        scores: Mean Dice (0 to 1) by source and target.
    """
    name, weights = trained.spec.name, trained.weights
    own = leave_base_out(trained.plans)[PLANS_KEY]
    card = Card(
        name=name,
        base=trained.plans[PLANS_KEY][BASE_KEY]["model"],
        checksum=read_checksum(weights, name),
        adapter=asdict(trained.spec),
        mirroring_axes=None if trained.mirroring is None else [int(axis) for axis in trained.mirroring],
        targets={key: list(found.get("targets", found["target_prompts"])) for key, found in own["contexts"].items()},
        parameters=count_parameters(weights, name),
        scores={source: dict(found) for source, found in scores.items()},
        prompts=own,
        dataset=keep_labels(trained.dataset),
    )
    return write_adapter(folder, take_adapter(weights, name), card)


def read_scores(fold: Path) -> dict[str, dict[str, float | None]]:
    """Read mean Dice (0 to 1) by source and target of a fold's validation; nothing if it was not validated."""
    file = fold / _SCORES
    if not file.is_file():
        return {}
    sources = json.loads(file.read_text(encoding="utf-8"))["sources"]
    return {
        source: {target: row["dice"] for target, row in found.get("targets", {}).items()}
        for source, found in sources.items()
    }


@dataclass(frozen=True)
class AdaptedModel:
    """A model folder that DuPLUSLoRATrainer left, and one fold of it.

    Attributes:
        folder: The model's.
        fold: Name of the fold.
        plans: Content of its plans.json.
        dataset: Content of its dataset.json.
        checkpoint: Of the fold.
    """

    folder: Path
    fold: str
    plans: dict[str, Any]
    dataset: dict[str, Any]
    checkpoint: dict[str, Any]

    @property
    def trained(self) -> Trained:
        """What the training came to, as the plans say and the weights show."""
        settings, name = read_settings(self.plans), name_adapter(self.plans)
        weights: dict[str, torch.Tensor] = self.checkpoint["network_weights"]
        end = f".lora_A.{name}.weight"
        layers = tuple(key.removesuffix(end) for key in take_adapter(weights, name) if key.endswith(end))
        own, film = settings.adaptation, settings.network.film
        spec = AdapterSpec(name, own.r, own.lora_alpha, own.lora_dropout, layers, own.film and film, own.head)
        return Trained(self.plans, self.dataset, spec, weights, self.checkpoint["inference_allowed_mirroring_axes"])


def open_adapted(folder: Path, fold: str, checkpoint: Mapping[str, Any]) -> AdaptedModel:
    """Put together what a model folder holds.

    Args:
        folder: Model folder.
        fold: Name of a fold.
        checkpoint: Of that fold.

    Raises:
        ModelError: It is none of an adapter.
    """
    plans, dataset = read_model(folder)
    if BASE_KEY not in plans.get(PLANS_KEY, {}):
        raise ModelError(
            f"{folder} holds no adapter: it was not trained by DuPLUSLoRATrainer. Adapters are listed by `duplus adapt "
            "list`."
        )
    return AdaptedModel(folder, fold, plans, dataset, dict(checkpoint))


def merge_model(model: AdaptedModel, out: Path) -> Path:
    """Write a plain model, whose network has no adapter and answers as the adapter does.

    It knows the adapter's targets and contexts alone; the base's are answered by the base.

    Args:
        model: The adapter's model.
        out: Folder of the new model; the fold goes into it.

    Returns:
        The new checkpoint.

    Raises:
        ModelError: There is such a fold already, or it cannot be written.
    """
    plans, trained = leave_base_out(model.plans), model.trained
    place = out / f"fold_{model.fold}"
    target = place / "checkpoint_final.pth"
    if target.exists():
        raise ModelError(f"{target} is there already, and is not overwritten. Name another folder with -o.")
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
            torch.save(merged, file)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"The merged model cannot be written to {out}: {error}. Free some space.") from error
    return target


def _list_files(model: AdaptedModel, out: Path) -> list[tuple[Path, Path]]:
    fold = f"fold_{model.fold}"
    names = ["dataset_fingerprint.json", *(f"{fold}/{name}" for name in _BESIDE)]
    return [(model.folder / name, out / name) for name in names if (model.folder / name).is_file()]


def find_fold(place: Path) -> tuple[Path, str | None]:
    """Split the path of a model folder, a fold in it or a file of that fold into the folder and the fold's name."""
    for folder in (place, place.parent):
        match = re.fullmatch(r"fold_(\w+)", folder.name)
        if match:
            return folder.parent, match[1]
    return place, None
