"""Writes plans that differ from others in settings alone: the variants of an ablation, and seeds."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import PlansError
from duplus_nnunet.files import write_text
from duplus_nnunet.plans_section import PLANS_KEY, find_section
from duplus_nnunet.settings import read_settings
from duplus_nnunet.submission.checks import PREPROCESSED, read_plans
from duplus_nnunet.text_files import load_json

# nnU-Net separates trainer, plans and configuration in folder names by two underscores.
_NAME = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Variant:
    """Changes of the settings in plans.

    Attributes:
        name: Its name; the plans are called after it. Empty: the plans as they are.
        changes: New values by the name of the setting, whose steps are joined by points, such as "network.film".
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def with_seed(self, seed: int) -> "Variant":
        """Return the variant with a seed of its own."""
        name = f"{self.name}_seed{seed}" if self.name else f"seed{seed}"
        return Variant(name, {**self.changes, "seed": seed})


def read_variant(words: Sequence[str]) -> Variant:
    """Read a variant from the command line: its name, then KEY=VALUE for each setting that it changes.

    A value is read as JSON where it is JSON, such as false, 3, null or "[0, 1]", and as a text otherwise.

    Raises:
        PlansError: The name cannot be part of a name of plans, or a word is not KEY=VALUE.

    Example:
        >>> read_variant(["no_film", "network.film=false", "epochs=250"]).changes
        {'network.film': False, 'epochs': 250}
    """
    name, *pairs = words
    if not _NAME.fullmatch(name):
        raise PlansError(
            f"{name!r} cannot name a variant: its plans are called after it. Name it by letters, digits and single "
            "underscores or hyphens, before its settings: --variant no_film network.film=false."
        )
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise PlansError(f"{pair!r} of the variant {name!r} is not KEY=VALUE, such as network.film=false.")
        changes[key] = _read_value(text)
    return Variant(name, changes)


def name_plans(plans: str, variant: Variant) -> str:
    """Name the plans of a variant."""
    return f"{plans}_{variant.name}" if variant.name else plans


def make_plans(plans: Mapping[str, Any], name: str, variant: Variant) -> dict[str, Any]:
    """Make the plans of a variant; preprocessed data are shared, since all but the settings and the name is equal.

    Args:
        plans: DuPLUS plans, which are not changed.
        name: Name of the new plans.
        variant: What is changed.

    Raises:
        PlansError: They are not DuPLUS plans, a setting is unknown, or a value is out of range.
    """
    find_section(plans)
    made = deepcopy(dict(plans))
    settings = made[PLANS_KEY].setdefault("settings", {})
    for key, value in variant.changes.items():
        *steps, last = key.split(".")
        group = settings
        for step in steps:
            group = group.setdefault(step, {})
            if not isinstance(group, dict):
                raise PlansError(f"The variant {variant.name!r} changes {key!r}, but {step!r} is a setting, no group.")
        group[last] = value
    try:
        read_settings(made)
    except PlansError as error:
        raise PlansError(f"The variant {variant.name!r} cannot be trained. {error}") from error
    made["plans_name"] = name
    return made


def check_variant(dataset: str, base: str, variant: Variant) -> tuple[Path, dict[str, Any]] | None:
    """Make the plans of a variant, and check that they would not replace others.

    Returns:
        The file and the plans to write; None if they are there already.

    Raises:
        PlansError: They cannot be made, or there are other plans of that name.
    """
    name = name_plans(base, variant)
    plans = make_plans(read_plans(dataset, base), name, variant)
    file = Path(os.environ[PREPROCESSED]) / dataset / f"{name}.json"
    if name == base:
        return None
    if not file.exists():
        return file, plans
    if load_json(file) == plans:
        return None
    raise PlansError(
        f"{file} exists and differs from the plans of the variant {variant.name!r}. It is not replaced, since a model "
        "may have been trained with it. Give the variant another name, or remove the file."
    )


def write_plans(file: Path, plans: Mapping[str, Any]) -> None:
    """Write plans atomically."""
    write_text(file, json.dumps(plans, indent=4))


def _read_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
