"""Labels of a prediction: in come dataset.json and what was asked for, out comes dataset.json of that alone."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from duplus_nnunet.inference.free_text import NewTarget, Reading


def select_labels(dataset_json: dict[str, Any], labels: Sequence[str], new: Sequence[NewTarget] = ()) -> dict[str, Any]:
    """Return a copy of dataset.json that declares the selected labels only; their values stay.

    Args:
        dataset_json: Content of dataset.json.
        labels: Labels to keep, in its order.
        new: Targets to add, each under its text; where regions overlap, they are written over the others.
    """
    from duplus_nnunet.planners.label_manager import list_targets

    chosen = deepcopy(dataset_json)
    targets = list(list_targets(dataset_json["labels"]))
    chosen["labels"] = {"background": 0, **{label: dataset_json["labels"][label] for label in labels}}
    chosen["labels"].update({target.text: target.value for target in new})
    order = dataset_json.get("regions_class_order")
    if order is not None:
        chosen["regions_class_order"] = [order[targets.index(label)] for label in labels]
        chosen["regions_class_order"] += [target.value for target in new]
    return chosen


def write_legend(declared: dict[str, Any], contexts: Mapping[str, str], reading: Reading) -> dict[str, Any]:
    """Say what stands in a prediction, for the dataset.json that nnU-Net writes beside it.

    Args:
        declared: The prediction's dataset.json.
        contexts: Context prompt (T1) by context.
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
