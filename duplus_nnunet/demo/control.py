"""The control experiments: the trained model with embeddings exchanged, each target or context getting another's.

In: a model folder. Out: its copy, which must do worse if these texts steer the network.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_section import PLANS_KEY, find_section

Plans = Mapping[str, Any]
Exchange = Callable[[Plans], dict[str, Any]]


def exchange_targets(plans: Plans, context: str) -> dict[str, Any]:
    """Give every target of a context the embeddings (sentence and name, T2) of the one after it.

    Targets that were never annotated in the context take no part: what their texts find in it, no training has said.

    Args:
        plans: DuPLUS plans.
        context: The only one that the copy is for; sentences of other contexts stay as they are.

    Returns:
        A copy in which no target that is annotated in the context keeps its own embeddings; contexts keep theirs.

    Raises:
        PlansError: There are fewer than two targets.
    """
    found = find_section(plans)["contexts"][context]
    donors = _pass_on("targets", found["targets"])
    first = {name: sentences[0] for name, sentences in found["target_prompts"].items()}
    return _exchange(plans, {**donors, **{first[name]: first[donor] for name, donor in donors.items()}})


def exchange_contexts(plans: Plans) -> dict[str, Any]:
    """Give every context the embedding (T1) of the context after it.

    Args:
        plans: DuPLUS plans.

    Returns:
        A copy in which no context keeps its own embedding; targets, normalisation and spacing stay as they are.

    Raises:
        PlansError: There are fewer than two contexts.
    """
    contexts = find_section(plans)["contexts"]
    donors = _pass_on("contexts", list(contexts))
    sources = {contexts[name]["sentences"][0]: contexts[donor]["sentences"][0] for name, donor in donors.items()}
    return _exchange(plans, sources)


def copy_model(model: Path, copy: Path, exchange: Exchange) -> None:
    """Copy a model folder, its weights unchanged, with some of its embeddings exchanged."""
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("validation", "checkpoint_best.pth", "*.log", "*.txt"))
    plans = json.loads((copy / "plans.json").read_text(encoding="utf-8"))
    (copy / "plans.json").write_text(json.dumps(exchange(plans)), encoding="utf-8")


def _pass_on(kind: str, names: Sequence[str]) -> dict[str, str]:
    if len(names) < 2:
        raise PlansError(f"The plans have the {kind} {names}; to exchange embeddings there must be two or more.")
    return dict(zip(names, [*names[1:], names[0]], strict=True))


def _exchange(plans: Plans, sources: Mapping[str, str]) -> dict[str, Any]:
    section = find_section(plans)
    kept = section["embeddings"]
    embeddings = {text: kept[sources.get(text, text)] for text in kept}
    return {**plans, PLANS_KEY: {**section, "embeddings": embeddings}}
