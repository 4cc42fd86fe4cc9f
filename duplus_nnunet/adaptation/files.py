"""Adapters on disk: one safetensors file with weights, and a JSON card that says what it is and of which base.

The file holds an adapter's own weights alone; the base is needed to use it, and is told by a checksum of its weights.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.adaptation.joining import ModelPart
from duplus_nnunet.errors import ModelError
from duplus_nnunet.networks.adaptation import AdapterSpec
from duplus_nnunet.outputs.files import open_new_file, read_form, write_text
from duplus_nnunet.outputs.manifest import hash_file

WEIGHTS, CARD = "adapter.safetensors", "adapter.json"
VERSION = 1
# Stands in the keys of the file for the adapter's name, which may be another one where it is used.
_NAME = "ADAPTER"


@dataclass(frozen=True)
class Card:
    """What an adapter's card says.

    Attributes:
        name: The adapter's.
        base: Name of the base's model folder.
        checksum: SHA-256 of the base's weights.
        adapter: Rank, layers and the other properties of its AdapterSpec.
        mirroring_axes: Array axes along which it saw mirror images; None: none.
        targets: What it was trained on, by context.
        parameters: Number of parameters of the base, of the LoRA and of the generators.
        scores: Mean Dice (0 to 1) by source and target of its validation; empty before one.
        prompts: The part `duplus` of its plans.
        dataset: Labels of its dataset.json.
        sha256: Checksum of the weights' file.
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
        """What the adapter consists of."""
        return AdapterSpec(**{**self.adapter, "layers": tuple(self.adapter["layers"])})

    @property
    def member(self) -> ModelPart:
        """The adapter's part of a joined model."""
        return ModelPart(self.name, self.prompts, self.dataset)


@dataclass(frozen=True)
class Adapter:
    """An adapter as it was read.

    Attributes:
        card: Its card.
        weights: Its weights, as networks.adaptation.take_adapter gives them.
    """

    card: Card
    weights: Mapping[str, Any]


def write_adapter(folder: str | os.PathLike[str], weights: Mapping[str, Any], card: Card) -> Card:
    """Write an adapter; each file under a temporary name first, the card last.

    Args:
        folder: Where to.
        weights: As networks.adaptation.take_adapter gives them.
        card: What the card says.

    Returns:
        The card with the checksum of the file.

    Raises:
        ModelError: The folder cannot be written.
    """
    from safetensors.torch import save_file

    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with open_new_file(place / WEIGHTS) as new:
            save_file({_rename(key, card.name, _NAME): value.clone() for key, value in weights.items()}, new)
        written = replace(card, sha256=hash_file(place / WEIGHTS))
        content = {"version": VERSION, **asdict(written)}
        write_text(place / CARD, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ModelError(
            f"The adapter cannot be written to {place}: {error}. Free some space, or name another."
        ) from error
    return written


def read_card(place: str | os.PathLike[str]) -> Card:
    """Read an adapter's card.

    Args:
        place: Its folder, or one of its two files.

    Raises:
        DataError: It cannot be read.
        ModelError: There is none.
    """
    file = find_folder(place) / CARD
    if not file.is_file():
        raise ModelError(
            f"{place} is no adapter: there is no {file}. An adapter is a folder with {WEIGHTS} and {CARD}, as "
            "DuPLUSLoRATrainer leaves them in fold_X, and `duplus adapt export` writes them."
        )
    return read_form(file, Card, VERSION, "Export the adapter again.")


def find_folder(place: str | os.PathLike[str]) -> Path:
    """Return the folder of an adapter of which it, or one of the two files, is named."""
    found = Path(place)
    return found.parent if found.name in (WEIGHTS, CARD) or found.is_file() else found


def read_adapter(place: str | os.PathLike[str]) -> Adapter:
    """Read an adapter.

    Args:
        place: Its folder, or one of its two files.

    Raises:
        ModelError: It is missing, cut off, or its files are of different adapters.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card, file = read_card(place), find_folder(place) / WEIGHTS
    try:
        found = hash_file(file)
        if found != card.sha256:
            raise ModelError(
                f"{file} is not the file that its card, {CARD}, was written for. Export the adapter again."
            )
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}. Export the adapter again.") from error
    return Adapter(card, {_rename(key, _NAME, card.name): value for key, value in weights.items()})


def _rename(key: str, old: str, new: str) -> str:
    """Exchange an adapter's name in the name of one of its weights."""
    for part in ("adapters.", ".lora_A.", ".lora_B."):
        key = key.replace(f"{part}{old}.", f"{part}{new}.")
    return key
