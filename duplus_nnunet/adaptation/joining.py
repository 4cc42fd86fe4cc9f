"""One model out of a base and its adapters: in come their plans and labels, out come plans and labels of all.

What a context and target is answered by, the base or an adapter, stands in the joined plans; the base's own come first
and stay as they are, label values too.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from duplus_nnunet.data.volume_ranges import KEY as VOLUMES
from duplus_nnunet.errors import PlansError, PromptError
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.settings import BASE_KEY, PLANS_KEY, find_section, leave_base_out

Plain = dict[str, Any]
_ORDER = "regions_class_order"
# Of a section, what belongs to texts and images; the rest is of the training or the same as the base's.
_SHARED = ("version", "encoder", "centres", "reference_spacing", "spacing")


@dataclass(frozen=True)
class ModelPart:
    """A base, or an adapter's part of a model.

    Attributes:
        name: The adapter's; "" is the base.
        section: Its part `duplus` of plans.
        dataset: Its dataset.json, of which labels and their order count.
    """

    name: str
    section: Mapping[str, Any]
    dataset: Mapping[str, Any]


def name_adapter(plans: Mapping[str, Any]) -> str:
    """Return the name of the adapter that plans are for: the dataset's, of letters, digits, `_` and `-`."""
    name = str(plans.get("dataset_name") or "adapter")
    return "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)


def keep_labels(dataset_json: Mapping[str, Any]) -> Plain:
    """Return what a dataset.json says of labels."""
    return {key: dataset_json[key] for key in ("labels", _ORDER) if key in dataset_json}


def describe_base(
    name: str, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], mirroring: Sequence[int] | None
) -> Plain:
    """Return what the plans of an adapter say of its base, under BASE_KEY.

    Args:
        name: Of the base's model folder.
        plans: Its plans.
        dataset_json: Its dataset.json.
        mirroring: Array axes along which it saw mirror images; None: none.
    """
    section = {key: value for key, value in find_section(plans).items() if key != "settings"}
    axes = None if mirroring is None else [int(axis) for axis in mirroring]
    return {"model": name, "section": section, "dataset": keep_labels(dataset_json), "mirroring_axes": axes}


def list_members(plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> list[ModelPart]:
    """Split a model into its base and its adapter, if it was trained as one; a base comes alone."""
    section = find_section(plans)
    base = section.get(BASE_KEY)
    if base is None:
        return [ModelPart("", section, dataset_json)]
    own = leave_base_out(plans)[PLANS_KEY]
    return [ModelPart("", base["section"], base["dataset"]), ModelPart(name_adapter(plans), own, dataset_json)]


def join_plans(plans: Mapping[str, Any], added: Sequence[ModelPart] = ()) -> Plain:
    """Return plans that know the base's prompts and those of all adapters.

    Args:
        plans: Those of a model, a base or one with an adapter.
        added: More adapters.

    Raises:
        PlansError: Adapters contradict each other or the base.
    """
    members = [*list_members(plans, {"labels": {}}), *added]
    if len(members) == 1:
        return dict(plans)
    section = deepcopy(leave_base_out(plans)[PLANS_KEY])
    base = members[0].section
    section |= {key: base[key] for key in _SHARED if key in base}
    section["left_right_axis"] = _join_axes([member.section.get("left_right_axis") for member in members])
    section["default_context"] = base["default_context"]
    section["contexts"], section["targets"] = deepcopy(dict(base["contexts"])), [dict(one) for one in base["targets"]]
    section["embeddings"] = dict(base["embeddings"])
    trained_last = members[-1 - len(added)].section
    section["entries"] = [list(entry) for entry in PromptBank({**plans, PLANS_KEY: trained_last}).entries]
    for member in members[1:]:
        _add(section, member)
    return {**plans, PLANS_KEY: section}


def _join_axes(axes: Sequence[int | None]) -> int | None:
    """Return the one axis from left to right that is known, if any is: all images' axes are in the base's order."""
    known = {axis for axis in axes if axis is not None}
    if len(known) > 1:
        raise PlansError(
            "The base's images and the new dataset's run from left to right along different axes. Add "
            '"overwrite_image_reader_writer": "SimpleITKIOWithReorient" to dataset.json, so that all run one way.'
        )
    return next(iter(known), None)


def _add(section: Plain, member: ModelPart) -> None:
    known = {target["name"]: target for target in section["targets"]}
    for target in member.section["targets"]:
        check_same_meaning(known.get(target["name"]), target, section["targets"])
        if target["name"] not in known:
            section["targets"].append(dict(target))
    for name, found in member.section["contexts"].items():
        trained = found.get("targets", list(found["target_prompts"]))
        there = section["contexts"].get(name)
        if there is None:
            there = section["contexts"][name] = {**deepcopy(dict(found)), "targets": [], "target_prompts": {}}
        check_context(name, there, found, trained)
        there["targets"] = [*there.get("targets", there["target_prompts"]), *trained]
        # What an adapter did not learn in a context is not asked of it there.
        learned = {target: found["target_prompts"][target] for target in trained}
        there["target_prompts"] = {**there["target_prompts"], **learned}
        there[VOLUMES] = {**found.get(VOLUMES, {}), **there.get(VOLUMES, {})}
        there["adapters"] = {**there.get("adapters", {}), **dict.fromkeys(trained, member.name)}
    section["embeddings"] = {**member.section["embeddings"], **section["embeddings"]}


def check_same_meaning(known: Mapping[str, Any] | None, new: Mapping[str, Any], others: Sequence[Any]) -> None:
    """Refuse a target that goes by a name which the base has for something else.

    Raises:
        PromptError: It does.
    """
    if known is not None and known.get("partner") != new.get("partner"):
        raise PromptError(
            f"The base knows {new['name']!r} with the partner {known.get('partner')!r}, the new dataset with "
            f"{new.get('partner')!r}: they are not the same structure. Give the new one another name in its registry "
            "file."
        )
    for other in others:
        if other["label"] == new["label"] and other["name"] != new["name"]:
            raise PromptError(
                f"The new dataset's label {new['label']!r} means {new['name']!r}; the base has a label of that name "
                f"that means {other['name']!r}. Rename the label in dataset.json, or correct its registry file."
            )


def check_context(name: str, there: Mapping[str, Any], found: Mapping[str, Any], trained: Sequence[str]) -> None:
    """Refuse a context that the base has for something else, or in which it learned the same target already.

    Raises:
        PlansError: It does.
    """
    if there["sentences"][0] != found["sentences"][0]:
        raise PlansError(
            f"The base has a context {name!r} that says {there['sentences'][0]!r}; the new dataset's says "
            f"{found['sentences'][0]!r}. Give the new context another name in its registry file."
        )
    twice = [target for target in trained if target in there.get("targets", there["target_prompts"])]
    if twice:
        raise PlansError(
            f"{twice[0]!r} in the context {name!r} is the base's (or another adapter's) already, and stays so. To "
            "adapt it to another scanner or centre, give the new dataset's context a name of its own in its registry "
            "file, by which it is asked for with --context."
        )


def join_labels(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], added: Sequence[ModelPart] = ()) -> Plain:
    """Return a dataset.json with the labels of the base, whose values stay, and of all adapters.

    Args:
        plans: The model's own, not joined.
        dataset_json: The model's own.
        added: More adapters.
    """
    members = [*list_members(plans, dataset_json), *added]
    if len(members) == 1:
        return dict(dataset_json)
    labels = dict(members[0].dataset["labels"])
    order = members[0].dataset.get(_ORDER)
    order = None if order is None else list(order)
    known = {target["name"] for target in members[0].section["targets"]}
    for target in (target for member in members[1:] for target in member.section["targets"]):
        if target["name"] in known:
            continue
        known.add(target["name"])
        largest = max(int(number) for value in labels.values() for number in np.atleast_1d(value))
        labels[target["label"]] = largest + 1
        if order is not None:
            order.append(largest + 1)
    joined = {**dataset_json, "labels": labels}
    joined.pop(_ORDER, None)
    return joined if order is None else {**joined, _ORDER: order}


def check_overlap(base: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> None:
    """Refuse targets that overlap where the base's exclude one another, or the other way round.

    Raises:
        PlansError: They do.
    """
    if (_ORDER in base) != (_ORDER in dataset_json):
        has, lacks = ("the base", "the new dataset") if _ORDER in base else ("the new dataset", "the base")
        raise PlansError(
            f"dataset.json of {has} has {_ORDER!r}, so that its targets may overlap; that of {lacks} has none, so that "
            "they exclude one another, and one label map cannot hold both. Add the key to the new dataset.json (one "
            "label value a target) or remove it, so that both are of one kind."
        )
