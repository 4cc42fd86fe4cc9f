"""Describes the label values and prompts of a prediction for its dataset.json."""

from collections.abc import Mapping
from typing import Any

from duplus_nnunet.inference.free_text import Reading


def describe_legend(declared: dict[str, Any], contexts: Mapping[str, str], reading: Reading) -> dict[str, Any]:
    """Describe what the label values of a prediction mean, for the dataset.json beside it.

    Args:
        declared: The prediction's dataset.json.
        contexts: Context prompt by context.
        reading: What the user's own texts stand for.
    """
    from duplus_nnunet.planners.label_manager import DuPLUSLabelManager, list_targets

    labels = declared["labels"]
    values = DuPLUSLabelManager(labels, declared.get("regions_class_order")).regions_class_order
    single = len(contexts) == 1
    return {
        **({"context": next(iter(contexts)), "context_prompt": next(iter(contexts.values()))} if single else {}),
        "contexts": dict(contexts),
        "legend": {str(value): label for value, label in zip(values, list_targets(labels), strict=True)},
        "not_seen_in_training": {
            target.text: {
                "value": target.value,
                "sentence": target.sentence,
                "name": target.name,
                "nearest": {name: round(cosine, 4) for name, cosine in target.nearest},
            }
            for target in reading.new
        },
    }
