"""Copies the trained model with exchanged embeddings: controls that score worse if the prompts steer the network."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_packing import unpack_section
from duplus_nnunet.plans_section import PLANS_KEY, find_section

Plans = Mapping[str, Any]
Exchange = Callable[[Plans], dict[str, Any]]


def exchange_targets(plans: Plans, context: str) -> dict[str, Any]:
    """Replace the embeddings (sentence and name) of every target of a context by those of the next target.

    Targets that are not annotated in the context are left unchanged, since the model was not trained on them there.

    Args:
        plans: DuPLUS plans.
        context: The context; sentences of other contexts are unchanged.

    Returns:
        A copy of the plans in which no target annotated in the context has its own embeddings.

    Raises:
        PlansError: There are fewer than two targets.
    """
    section = unpack_section(find_section(plans))["contexts"][context]
    donors = _rotate("targets", section["targets"])
    first = {name: sentences[0] for name, sentences in section["target_prompts"].items()}
    return _exchange(plans, {**donors, **{first[name]: first[donor] for name, donor in donors.items()}})


def exchange_contexts(plans: Plans) -> dict[str, Any]:
    """Replace the embedding of every context prompt by that of the next context.

    Args:
        plans: DuPLUS plans.

    Returns:
        A copy of the plans in which no context has its own embedding; targets, normalisation and spacing are unchanged.

    Raises:
        PlansError: There are fewer than two contexts.
    """
    contexts = unpack_section(find_section(plans))["contexts"]
    donors = _rotate("contexts", list(contexts))
    sources = {contexts[name]["sentences"][0]: contexts[donor]["sentences"][0] for name, donor in donors.items()}
    return _exchange(plans, sources)


def copy_model(model: Path, copy: Path, exchange: Exchange) -> None:
    """Copy a model folder with exchanged embeddings and unchanged weights."""
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("validation", "checkpoint_best.pth", "*.log", "*.txt"))
    plans = json.loads((copy / "plans.json").read_text(encoding="utf-8"))
    (copy / "plans.json").write_text(json.dumps(exchange(plans)), encoding="utf-8")


def _rotate(kind: str, names: Sequence[str]) -> dict[str, str]:
    if len(names) < 2:
        raise PlansError(f"The plans have the {kind} {names}; exchanging embeddings needs at least two.")
    return dict(zip(names, [*names[1:], names[0]], strict=True))


def _exchange(plans: Plans, sources: Mapping[str, str]) -> dict[str, Any]:
    section = unpack_section(find_section(plans))
    original = section["embeddings"]
    embeddings = {text: original[sources.get(text, text)] for text in original}
    return {**plans, PLANS_KEY: {**section, "embeddings": embeddings}}
