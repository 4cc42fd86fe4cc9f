"""What a trained adapter's model folder is made into: an adapter by itself, or a plain model of merged weights."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.adaptation.files import Card, describe_spec, write_adapter
from duplus_nnunet.adaptation.joining import name_adapter
from duplus_nnunet.errors import ModelError
from duplus_nnunet.networks.adaptation import (
    AdapterSpec,
    count_parameters,
    merge_adapter,
    read_checksum,
    take_adapter,
)
from duplus_nnunet.outputs.files import open_new_file, write_text
from duplus_nnunet.settings import BASE_KEY, PLANS_KEY, read_settings

_SCORES = Path("validation", "scores.json")
# Beside the checkpoint, what nnU-Net's export to a zip file asks for.
_BESIDE = ("progress.png", "validation/summary.json", "validation/scores.json", "validation/scores.csv")


def export_adapter(
    folder: Path,
    weights: Mapping[str, torch.Tensor],
    spec: AdapterSpec,
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, float | None]],
) -> Card:
    """Write an adapter by itself.

    Args:
        folder: Where to.
        weights: State dictionary of the network with the adapter.
        spec: The adapter's.
        plans: Those that it was trained by.
        dataset_json: The one that it was trained by.
        scores: Mean Dice (0 to 1) by source and target.
    """
    section = plans[PLANS_KEY]
    own = {key: value for key, value in section.items() if key != BASE_KEY}
    labels = {key: dataset_json[key] for key in ("labels", "regions_class_order") if key in dataset_json}
    card = Card(
        name=spec.name,
        base=section[BASE_KEY]["model"],
        checksum=read_checksum(weights, spec.name),
        adapter=describe_spec(spec),
        targets={name: list(found.get("targets", found["target_prompts"])) for name, found in own["contexts"].items()},
        parameters=count_parameters(weights, spec.name),
        scores={source: dict(found) for source, found in scores.items()},
        prompts=own,
        dataset=labels,
    )
    return write_adapter(folder, take_adapter(weights, spec.name), card)


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
    def weights(self) -> dict[str, torch.Tensor]:
        """State dictionary of the network with the adapter."""
        found: dict[str, torch.Tensor] = self.checkpoint["network_weights"]
        return found

    @property
    def spec(self) -> AdapterSpec:
        """What the adapter consists of, as the plans say and the weights show."""
        settings, name = read_settings(self.plans), name_adapter(self.plans)
        end = f".lora_A.{name}.weight"
        layers = [key.removesuffix(end) for key in take_adapter(self.weights, name) if key.endswith(end)]
        own = settings.adaptation
        film = own.film and settings.network.film
        return AdapterSpec(name, own.r, own.lora_alpha, own.lora_dropout, tuple(layers), film, own.head)


def open_adapted(folder: Path, fold: str, checkpoint: Mapping[str, Any]) -> AdaptedModel:
    """Put together what a model folder holds.

    Args:
        folder: Model folder.
        fold: Name of a fold.
        checkpoint: Of that fold.

    Raises:
        ModelError: It is none of an adapter.
    """
    try:
        plans, dataset = (json.loads((folder / f"{name}.json").read_text("utf-8")) for name in ("plans", "dataset"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} is no model folder: {error}.") from error
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
    section = {key: value for key, value in model.plans[PLANS_KEY].items() if key != BASE_KEY}
    plans = {**model.plans, PLANS_KEY: section}
    place = out / f"fold_{model.fold}"
    target = place / "checkpoint_final.pth"
    if target.exists():
        raise ModelError(f"{target} is there already, and is not overwritten. Name another folder with -o.")
    arguments = {**model.checkpoint["init_args"], "plans": plans}
    merged = {
        **{key: value for key, value in model.checkpoint.items() if key != "optimizer_state"},
        "network_weights": merge_adapter(model.weights, model.spec),
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
