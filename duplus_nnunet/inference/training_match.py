"""Compares the plans of a model folder with those that its checkpoint was trained by."""

from collections.abc import Iterator, Mapping
from typing import Any

from duplus_nnunet.errors import ModelError
from duplus_nnunet.model_form import inherit, shorten
from duplus_nnunet.plans_section import PLANS_KEY


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
        if old is not None and _as_lists(old) != _as_lists(new):
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


def _as_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_lists(item) for key, item in value.items()}
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
