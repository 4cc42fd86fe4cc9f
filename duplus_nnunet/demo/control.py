"""The control experiment: the trained model with the target embeddings exchanged, each target getting another's.

In: a model folder. Out: its copy, which must fail if the text steers the network.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import PlansError
from duplus_nnunet.settings import PLANS_KEY, find_section


def shuffle_embeddings(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Give every target the embeddings (sentence and name) of the target after it.

    Args:
        plans: DuPLUS plans.

    Returns:
        A copy in which no target keeps its own embeddings; contexts keep theirs.

    Raises:
        PlansError: There are fewer than two targets.
    """
    section = find_section(plans)
    names = [target["name"] for target in section["targets"]]
    if len(names) < 2:
        raise PlansError(f"The plans have the targets {names}; to exchange embeddings there must be two or more.")
    donors = dict(zip(names, [*names[1:], names[0]], strict=True))
    sources = dict(donors)
    for context in section["contexts"].values():
        first = {name: sentences[0] for name, sentences in context["target_prompts"].items()}
        sources.update({first[name]: first[donor] for name, donor in donors.items()})
    kept = section["embeddings"]
    embeddings = {text: kept[sources.get(text, text)] for text in kept}
    return {**plans, PLANS_KEY: {**section, "embeddings": embeddings}}


def copy_shuffled(model: Path, copy: Path) -> None:
    """Copy a model folder, its weights unchanged, with the target embeddings exchanged."""
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("validation", "checkpoint_best.pth", "*.log", "*.txt"))
    plans = json.loads((copy / "plans.json").read_text(encoding="utf-8"))
    (copy / "plans.json").write_text(json.dumps(shuffle_embeddings(plans)), encoding="utf-8")
