"""Joins the plans and the labels of a base and its adapters to those of one model.

The joined plans name the adapter, or the base, that predicts each target in each context. What the base has comes first
and is unchanged, label values included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from duplus_nnunet.errors import PlansError, PromptError
from duplus_nnunet.plans_form import PlannedContext, PlannedTarget, PlansForm, as_form, parse_section
from duplus_nnunet.plans_section import BASE_KEY, PLANS_KEY, SETTINGS_VERSION_KEY, find_section, leave_base_out

Plain = dict[str, Any]
_ORDER = "regions_class_order"
# Keys of the section `duplus` that describe texts and images: a joined model has the base's values.
_SHARED = ("version", "encoder", "centres", "reference_spacing", "spacing")


@dataclass(frozen=True)
class ModelPart:
    """The base of a model, or one of its adapters.

    Attributes:
        name: Name of the adapter; empty for the base.
        section: Section `duplus` of its plans.
        dataset: Its dataset.json, of which only labels and their order are used.
    """

    name: str
    section: Mapping[str, Any]
    dataset: Mapping[str, Any]

    @cached_property
    def form(self) -> PlansForm:
        """The section, validated.

        Raises:
            PlansError: It cannot be used.
        """
        return parse_section(self.section, self.name or "base")


def name_adapter(plans: Mapping[str, Any]) -> str:
    """Return the name of the adapter that plans are for: the dataset's, with letters, digits, `_` and `-` only."""
    name = str(plans.get("dataset_name") or "adapter")
    return "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)


def keep_labels(dataset_json: Mapping[str, Any]) -> Plain:
    """Return what a dataset.json contains of labels."""
    return {key: dataset_json[key] for key in ("labels", _ORDER) if key in dataset_json}


def describe_base(
    name: str, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], mirroring: Sequence[int] | None
) -> Plain:
    """Return the description of a base for the plans of an adapter: content of a PlannedBase, as plain data.

    Args:
        name: Name of the base's model folder.
        plans: Its plans.
        dataset_json: Its dataset.json.
        mirroring: Array axes along which it was trained with mirror images; None: none.
    """
    section = {
        key: value for key, value in find_section(plans).items() if key not in ("settings", SETTINGS_VERSION_KEY)
    }
    axes = None if mirroring is None else [int(axis) for axis in mirroring]
    return {"model": name, "section": section, "dataset": keep_labels(dataset_json), "mirroring_axes": axes}


def list_members(plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> list[ModelPart]:
    """List the base of a model and, if the model was trained as an adapter, that adapter."""
    section = find_section(plans)
    base = None if section.get(BASE_KEY) is None else as_form(plans).base
    if base is None:
        return [ModelPart("", section, dataset_json)]
    own = leave_base_out(plans)[PLANS_KEY]
    return [ModelPart("", base.section, base.dataset), ModelPart(name_adapter(plans), own, dataset_json)]


def join_plans(plans: Mapping[str, Any], added: Sequence[ModelPart] = ()) -> Plain:
    """Return plans with the prompts of the base and of all adapters.

    Args:
        plans: Plans of a model: a base, or an adapter trained beside one.
        added: Further adapters.

    Raises:
        PlansError: The plans of one cannot be used, or they contradict each other.
        PromptError: Two give a label or a target different meanings.
    """
    members = [*list_members(plans, {"labels": {}}), *added]
    if len(members) == 1:
        return dict(plans)
    base, trained_last = members[0].form, members[-1 - len(added)].form
    contexts, targets = dict(base.contexts), list(base.targets)
    embeddings = dict(base.embeddings)
    for member in members[1:]:
        _add_targets(targets, member.form.targets)
        _add_contexts(contexts, member)
        embeddings = {**member.form.embeddings, **embeddings}
    section = {
        **leave_base_out(plans)[PLANS_KEY],
        **{key: value for key, value in members[0].section.items() if key in _SHARED},
        "left_right_axis": _join_axes([member.form.left_right_axis for member in members]),
        "orientation": _join_orientations([member.form.orientation for member in members]),
        "default_context": base.default_context,
        "contexts": {key: context.model_dump(exclude_unset=True) for key, context in contexts.items()},
        "targets": [target.model_dump(exclude_unset=True) for target in targets],
        "embeddings": embeddings,
        # The table of texts in the weights is that of the adapter that was trained last; its entries come first.
        "entries": [list(entry) for entry in trained_last.list_entries()],
    }
    return {**plans, PLANS_KEY: section}


def _join_axes(axes: Sequence[int | None]) -> int | None:
    """Return the left-right axis that is known, if any: all images have their axes in the base's order."""
    known = {axis for axis in axes if axis is not None}
    if len(known) > 1:
        raise PlansError(
            "The left-right axis of the base's images is not that of the new dataset's images. Add "
            '"overwrite_image_reader_writer": "SimpleITKIOWithReorient" to dataset.json, so that both have the same.'
        )
    return next(iter(known), None)


def _join_orientations(names: Sequence[str | None]) -> str | None:
    """Return the orientation that is known, if any; all parts of a network get the same image."""
    known = sorted({name for name in names if name is not None})
    if len(known) > 1:
        raise PlansError(
            f"The parts of the model were trained with images of different orientations ({', '.join(known)}), and "
            "cannot predict one image together. Plan the new dataset for the base again."
        )
    return next(iter(known), None)


def _add_targets(targets: list[PlannedTarget], new: Sequence[PlannedTarget]) -> None:
    """Append the targets that are not there yet."""
    known = {target.name: target for target in targets}
    for target in new:
        check_same_meaning(known.get(target.name), target, targets)
        if target.name not in known:
            targets.append(target)


def _add_contexts(contexts: dict[str, PlannedContext], member: ModelPart) -> None:
    """Add the targets that an adapter was trained on, in each of its contexts."""
    for key, context in member.form.contexts.items():
        # The adapter does not predict what it was not trained on in a context.
        learned = {target: context.target_prompts[target] for target in context.trained}
        present = contexts.get(key)
        if present is None:
            present = context.model_copy(update={"targets": [], "target_prompts": {}})
        check_context(key, present, context)
        trained = [*present.trained, *context.trained]
        changes: Plain = {
            "targets": trained,
            "target_prompts": {**present.target_prompts, **learned},
            "volumes": {**_take_volumes(key, context), **_take_volumes(key, present)},
            "adapters": {**(present.adapters or {}), **dict.fromkeys(context.trained, member.name)},
        }
        if present.implausible or context.implausible:
            both = dict.fromkeys([*present.implausible, *context.implausible])
            changes["implausible"] = [name for name in both if name not in trained]
        contexts[key] = present.model_copy(update=changes)


def _take_volumes(key: str, context: PlannedContext) -> Mapping[str, Any]:
    """Return the ranges of the volumes of a context's targets.

    Raises:
        PlansError: They are no mapping.
    """
    if not isinstance(context.volumes, Mapping):
        raise PlansError(
            f"duplus.contexts.{key}.volumes: expected ranges by target, found {context.volumes!r}. Undo that, or "
            "export the model again."
        )
    return context.volumes


def check_same_meaning(known: PlannedTarget | None, new: PlannedTarget, others: Sequence[PlannedTarget]) -> None:
    """Refuse a target whose name or label the base uses for another structure.

    Args:
        known: The base's target of the same name, if there is one.
        new: The target of the new dataset.
        others: All targets of the base.

    Raises:
        PromptError: Partner or label contradict the base's.
    """
    if known is not None and known.partner != new.partner:
        raise PromptError(
            f"The base has {new.name!r} with the partner {known.partner!r}, the new dataset with {new.partner!r}: they "
            "are not the same structure. Give the new one another name in its registry file."
        )
    for other in others:
        if other.label == new.label and other.name != new.name:
            raise PromptError(
                f"The new dataset's label {new.label!r} means {new.name!r}; the base has a label of that name that "
                f"means {other.name!r}. Rename the label in dataset.json, or correct its registry file."
            )


def check_context(key: str, present: PlannedContext, new: PlannedContext) -> None:
    """Refuse a context whose key the base uses for another context, or in which a target is trained already.

    Args:
        key: Key of both contexts.
        present: The context of the base and of the adapters so far.
        new: The context of the new dataset.

    Raises:
        PlansError: The context prompts differ, or a target is in both.
    """
    if present.sentences[0] != new.sentences[0]:
        raise PlansError(
            f"The base has a context {key!r} with the context prompt {present.sentences[0]!r}; the new dataset's is "
            f"{new.sentences[0]!r}. Give the new context another name in its registry file."
        )
    twice = [target for target in new.trained if target in present.trained]
    if twice:
        raise PlansError(
            f"{twice[0]!r} in the context {key!r} belongs to the base (or to another adapter) already. To adapt it to "
            "another scanner or centre, give the new dataset's context a name of its own in its registry file; it is "
            "then selected with --context."
        )


def join_labels(plans: Mapping[str, Any], dataset_json: Mapping[str, Any], added: Sequence[ModelPart] = ()) -> Plain:
    """Return a dataset.json with the labels of the base, whose values stay, and of all adapters.

    Args:
        plans: Plans of the model, before they are joined.
        dataset_json: The model's dataset.json.
        added: Further adapters.
    """
    members = [*list_members(plans, dataset_json), *added]
    if len(members) == 1:
        return dict(dataset_json)
    labels = dict(members[0].dataset["labels"])
    order = members[0].dataset.get(_ORDER)
    order = None if order is None else list(order)
    known = {target.name for target in members[0].form.targets}
    for target in (target for member in members[1:] for target in member.form.targets):
        if target.name in known:
            continue
        known.add(target.name)
        largest = max(int(number) for value in labels.values() for number in np.atleast_1d(value))
        labels[target.label] = largest + 1
        if order is not None:
            order.append(largest + 1)
    joined = {**dataset_json, "labels": labels}
    joined.pop(_ORDER, None)
    return joined if order is None else {**joined, _ORDER: order}


def check_overlap(base: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> None:
    """Refuse targets that may overlap if those of the base exclude one another, and the reverse.

    Raises:
        PlansError: One dataset.json declares an order of regions, the other does not.
    """
    if (_ORDER in base) != (_ORDER in dataset_json):
        has, lacks = ("the base", "the new dataset") if _ORDER in base else ("the new dataset", "the base")
        raise PlansError(
            f"dataset.json of {has} has {_ORDER!r}, so its targets may overlap; that of {lacks} has none, so its "
            "targets exclude one another, and one label map cannot represent both. Add the key to the new dataset.json "
            "(one label value for each target) or remove it, so that both are of one kind."
        )
