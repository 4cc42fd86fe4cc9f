"""Compares the plans and labels of a model folder with those that its checkpoint was trained with.

nnU-Net stores both in every checkpoint. A model whose plans.json or dataset.json was edited after training, or comes
from another training, loads as long as the shapes fit, but normalises, resamples or names its targets differently.
What a training fixes must be equal; other differences are reported.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from duplus_nnunet.errors import ModelError
from duplus_nnunet.model_form import inherit, shorten
from duplus_nnunet.plans_section import PLANS_KEY, SETTINGS_VERSION_KEY, find_differences

_SHOWN = 5
# What no prediction depends on.
_UNUSED = frozenset(
    {
        "dataset_name", "plans_name", "original_median_spacing_after_transp", "original_median_shape_after_transp",
        "experiment_planner_used", "continue_training",
    }
)  # fmt: skip
_UNUSED_OF_CONFIGURATION = frozenset(
    {
        "data_identifier", "batch_size", "median_image_size_in_voxels", "batch_dice", "resampling_fn_seg",
        "resampling_fn_seg_kwargs",
    }
)  # fmt: skip
_UNUSED_OF_SECTION = frozenset({"registry", "settings", SETTINGS_VERSION_KEY})
# Settings that say what the network computes; the others say how it is trained.
_SETTINGS = ("network", "text_adapter", "adaptation", "context_prompt", "target_prompt")
# Of dataset.json: nnU-Net's users change its file ending to predict files of another format.
_DATASET = ("channel_names", "labels", "regions_class_order")


def compare_training(plans: Mapping[str, Any], checkpoint: Mapping[str, Any], file: object) -> str:
    """Return the configuration that a checkpoint was trained in, after comparing its plans with those of the folder.

    What a training fixes is compared: the network, the order of axes, and how embeddings are centred.

    Args:
        plans: Content of plans.json, validated.
        checkpoint: Content of the checkpoint.
        file: The checkpoint, for messages.

    Raises:
        ModelError: The checkpoint lacks what nnU-Net reads, or was trained with another network, axes or centres.
    """
    arguments = checkpoint.get("init_args")
    arguments = arguments if isinstance(arguments, Mapping) else {}
    name = arguments.get("configuration")
    if not isinstance(checkpoint.get("trainer_name"), str) or not isinstance(name, str):
        raise ModelError(f"{file} does not say by which trainer and in which configuration it was trained.")
    if name not in plans["configurations"]:
        raise ModelError(
            f"{file} was trained in the configuration {name!r}; plans.json has {', '.join(plans['configurations'])}. "
            "Restore plans.json."
        )
    for where, old, new in _list_fixed(arguments.get("plans"), plans, name, file):
        if old is not None and any(find_differences(old, new)):
            raise ModelError(
                f"{where} is {shorten(new)} in plans.json; {file} was trained with {shorten(old)}. Restore plans.json."
            )
    return name


def _list_fixed(before: Any, now: Mapping[str, Any], name: str, file: object) -> Iterator[Any]:
    """List what never changes after a training: its place, and its value in both plans."""
    known = before.get("configurations") if isinstance(before, Mapping) else None
    if not isinstance(known, Mapping) or name not in known:
        return
    old, new = (
        inherit(configurations, name, file)["architecture"] for configurations in (known, now["configurations"])
    )
    old, new = ({**part, **part["arch_kwargs"]} for part in (old, new))
    place = f"configurations.{name}.architecture"
    yield from ((f"{place}.{key}", old[key], new.get(key)) for key in old if key != "arch_kwargs")
    for key in ("transpose_forward", "transpose_backward", "label_manager"):
        yield key, before.get(key), now.get(key)
    sections = [plans.get(PLANS_KEY) or {} for plans in (before, now)]
    yield f"{PLANS_KEY}.centres", sections[0].get("centres"), sections[1].get("centres")


def describe_changes(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> str:
    """Describe what differs between a model folder and its checkpoint in what a prediction depends on.

    Args:
        plans: Content of the folder's plans.json.
        dataset_json: Content of the folder's dataset.json.
        checkpoint: Content of a checkpoint.

    Returns:
        One sentence; empty if nothing differs, or the checkpoint holds no plans.
    """
    arguments = checkpoint.get("init_args")
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("plans"), Mapping):
        return ""
    name = str(arguments.get("configuration"))
    changes = [f"plans.json: {key}" for key in _compare_plans(plans, arguments["plans"], name)]
    labels = arguments.get("dataset_json")
    if labels and dataset_json:
        old, new = ({key: content.get(key) for key in _DATASET} for content in (labels, dataset_json))
        changes += [f"dataset.json: {key}" for key, _, _ in find_differences(old, new)]
    if not changes:
        return ""
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return (
        f"The model folder is not as it was when its checkpoint was trained: {', '.join(changes[:_SHOWN])}{more} "
        "differ. Predictions may be wrong. Restore these files, or train again."
    )


def share_mirroring(folds: Mapping[str, tuple[int, ...]]) -> tuple[tuple[int, ...], str]:
    """Find the axes along which all folds were trained with mirror images.

    nnU-Net predicts with those of the fold that it loads first, which another fold may never have seen.

    Args:
        folds: Array axes of each fold.

    Returns:
        The axes of all folds, and a sentence if they differ, else an empty one.
    """
    common = set.intersection(*map(set, folds.values())) if folds else set[int]()
    if len({frozenset(axes) for axes in folds.values()}) < 2:
        return tuple(sorted(common)), ""
    listed = "; ".join(f"{name}: {', '.join(map(str, axes)) or 'none'}" for name, axes in folds.items())
    kept = f"along {', '.join(map(str, sorted(common)))} alone" if common else "without any"
    return tuple(sorted(common)), (
        f"The folds were trained with mirror images along different axes ({listed}); the prediction mirrors {kept}, as "
        "all of them know. Train the folds with the same settings."
    )


def _compare_plans(now: Mapping[str, Any], trained: Mapping[str, Any], configuration: str) -> Iterator[str]:
    parts = (_list_parts(plans, configuration) for plans in (trained, now))
    for (name, old), (_, new) in zip(*parts, strict=True):
        yield from (key for key, _, _ in find_differences(old, new, name))


def _list_parts(plans: Mapping[str, Any], configuration: str) -> list[tuple[str, dict[str, Any]]]:
    """List the parts of plans that a prediction depends on, each under the keys that lead to it."""
    chosen = _as_mapping(_as_mapping(plans.get("configurations")).get(configuration))
    section = _as_mapping(plans.get(PLANS_KEY))
    settings = _as_mapping(section.get("settings"))
    return [
        ("", _leave_out(plans, _UNUSED | {"configurations", PLANS_KEY})),
        (f"configurations.{configuration}", _leave_out(chosen, _UNUSED_OF_CONFIGURATION)),
        (PLANS_KEY, _leave_out(section, _UNUSED_OF_SECTION)),
        (f"{PLANS_KEY}.settings", {key: settings[key] for key in _SETTINGS if key in settings}),
    ]


def _leave_out(content: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
