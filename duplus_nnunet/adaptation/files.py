"""Reads and writes adapters: a safetensors file with the weights, and a JSON card that describes them and their base.

The file contains the weights of the adapter only; the base, which is needed to use it, is identified by a checksum.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from duplus_nnunet.adaptation.joining import ModelPart
from duplus_nnunet.errors import DataError, ModelError
from duplus_nnunet.files import open_new_file, read_form, write_text
from duplus_nnunet.networks.adaptation import AdapterSpec
from duplus_nnunet.outputs.manifest import hash_file
from duplus_nnunet.prompt_registry.dataset_labels import find_label_problems

WEIGHTS, CARD = "adapter.safetensors", "adapter.json"
VERSION = 1
_ADVICE = "Export the adapter again."
# Replaces the adapter's name in the keys of the file, since an adapter may be used under another name.
_NAME = "ADAPTER"


@dataclass(frozen=True)
class Card:
    """Content of an adapter's card.

    Attributes:
        name: Name of the adapter.
        base: Name of the base's model folder.
        checksum: SHA-256 of the base's weights.
        adapter: Rank, layers and the other properties of its AdapterSpec.
        mirroring_axes: Array axes along which it was trained with mirror images; None: none.
        targets: Names of the trained targets, by context.
        parameters: Number of parameters of the base, of the LoRA and of the generators.
        scores: Mean Dice (0 to 1) by source and target of its validation; empty before a validation.
        prompts: Section `duplus` of its plans.
        dataset: Labels of its dataset.json.
        sha256: Checksum of the file with the weights.
    """

    name: str
    base: str
    checksum: str
    adapter: dict[str, Any]
    mirroring_axes: list[int] | None
    targets: dict[str, list[str]]
    parameters: dict[str, int]
    scores: dict[str, dict[str, float | None]]
    prompts: dict[str, Any]
    dataset: dict[str, Any]
    sha256: str = ""

    @property
    def spec(self) -> AdapterSpec:
        """The parts of the adapter."""
        return AdapterSpec(**{**self.adapter, "layers": tuple(self.adapter["layers"])})

    @property
    def member(self) -> ModelPart:
        """The adapter as a part of a joined model."""
        return ModelPart(self.name, self.prompts, self.dataset)


class _AdapterForm(BaseModel):
    """The properties of an AdapterSpec, as a card has them."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]
    r: Annotated[int, Field(ge=1, le=4096)]
    lora_alpha: Annotated[float, Field(gt=0, le=1e6, strict=False)]
    lora_dropout: Annotated[float, Field(ge=0, lt=1, strict=False)]
    layers: Annotated[list[str], Field(min_length=1)]
    film: bool
    head: bool


@dataclass(frozen=True)
class Adapter:
    """An adapter.

    Attributes:
        card: Its card.
        weights: Its weights, as returned by networks.adaptation.take_adapter.
    """

    card: Card
    weights: Mapping[str, Any]


def write_adapter(folder: str | os.PathLike[str], weights: Mapping[str, Any], card: Card) -> Card:
    """Write an adapter; each file is written atomically, the card last.

    Args:
        folder: Folder to write to.
        weights: Weights, as returned by networks.adaptation.take_adapter.
        card: Content of the card.

    Returns:
        The card with the checksum of the file with the weights.

    Raises:
        ModelError: The folder cannot be written.
    """
    from safetensors.torch import save

    out = Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open_new_file(out / WEIGHTS) as new:
            # safetensors' save_file would give the file a mode of its own, readable by its owner alone.
            new.write_bytes(save({_rename(key, card.name, _NAME): value.clone() for key, value in weights.items()}))
        written = replace(card, sha256=hash_file(out / WEIGHTS))
        content = {"version": VERSION, **asdict(written)}
        write_text(out / CARD, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ModelError(
            f"The adapter cannot be written to {out}: {error}. Free some space, or give another folder."
        ) from error
    return written


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read an adapter's card.

    Args:
        path: The adapter's folder, or one of its two files.

    Raises:
        DataError: The card cannot be read.
        ModelError: There is no card.
    """
    file = find_folder(path) / CARD
    if not file.is_file():
        raise ModelError(
            f"{path} is no adapter: {file} does not exist. An adapter is a folder with {WEIGHTS} and {CARD}, as "
            "DuPLUSLoRATrainer writes it to fold_X, and `duplus adapt export` to any folder."
        )
    card = read_form(file, Card, VERSION, _ADVICE)
    problems = list(_find_problems(card))
    if problems:
        raise DataError(f"{file} cannot be used: {' '.join(problems[:3])} {_ADVICE}")
    return card


def _find_problems(card: Card) -> Iterator[str]:
    """Find what is missing, of another type or contradictory in a card."""
    try:
        form = _AdapterForm.model_validate(card.adapter)
    except ValidationError as error:
        yield from (f"adapter.{'.'.join(map(str, item['loc']))}: {item['msg']}." for item in error.errors())
        return
    if form.name != card.name or not re.fullmatch(r"[\w-]+", card.name):
        yield f"name: expected letters, digits, '_' and '-', as in adapter.name; found {card.name!r} and {form.name!r}."
    for key in ("checksum", "sha256"):
        if not re.fullmatch(r"[0-9a-f]{64}", getattr(card, key)):
            yield f"{key}: expected a SHA-256."
    axes = card.mirroring_axes or []
    if not set(axes) <= {0, 1, 2} or len(set(axes)) < len(axes):
        yield f"mirroring_axes: expected some of 0, 1 and 2; found {axes}."
    missing = {"base", "lora", "generators"} - card.parameters.keys()
    if missing:
        yield f"parameters: {', '.join(sorted(missing))} is missing."
    labels = card.dataset.get("labels")
    order = card.dataset.get("regions_class_order")
    if not isinstance(labels, dict) or not (order is None or isinstance(order, list)):
        yield f"dataset.labels: expected label values by name, found {labels!r}."
    else:
        yield from (f"dataset.{problem}" for problem in find_label_problems(labels, order, ordered=False))


def find_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder of an adapter, given the folder or one of its two files."""
    given = Path(path)
    return given.parent if given.name in (WEIGHTS, CARD) or given.is_file() else given


def read_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Read an adapter.

    Args:
        path: The adapter's folder, or one of its two files.

    Raises:
        DataError: The card cannot be read.
        ModelError: A file is missing or damaged, or the files belong to different adapters.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card, file = read_card(path), find_folder(path) / WEIGHTS
    try:
        if hash_file(file) != card.sha256:
            raise ModelError(
                f"{file} is not the file that its card, {CARD}, was written for. Export the adapter again."
            )
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}. Export the adapter again.") from error
    return Adapter(card, {_rename(key, _NAME, card.name): value for key, value in weights.items()})


def _rename(key: str, old: str, new: str) -> str:
    """Replace the adapter's name in the name of one of its weights."""
    for part in ("adapters.", ".lora_A.", ".lora_B."):
        key = key.replace(f"{part}{old}.", f"{part}{new}.")
    return key
