"""Reads the labels and channels of an nnU-Net dataset.json and checks that the labels can become targets."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError, RegistryError
from duplus_nnunet.prompt_registry.names import normalise

BACKGROUND, IGNORE = "background", "ignore"
# nnU-Net stores preprocessed label maps in 16 bits with a sign.
LARGEST_VALUE = 32767

Values = dict[str, tuple[int, ...]]


def foreground_labels(dataset_json: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """List the labels that can be targets, in the order of dataset.json: regions too, but not background and ignore.

    Args:
        dataset_json: The parsed file.
        where: Name of the file in messages.

    Raises:
        RegistryError: There is no such label, or two names are equal but for case and separators.
    """
    labels = dataset_json.get("labels")
    if not isinstance(labels, dict):
        message = f'{where}: expected "labels" to be a mapping of names to values, found {labels!r}.'
        raise RegistryError(f'{message} Write for example "labels": {{"background": 0, "liver": 1}}.')
    swapped = _describe_swapped(labels)
    if swapped:
        raise RegistryError(f"{where}: {swapped}")
    names = tuple(name for name, value in labels.items() if name != IGNORE and not _is_background(value))
    if not names:
        listed = ", ".join(repr(name) for name in labels) or "none"
        message = f"{where}: no foreground label among {listed}; background and ignore cannot be targets."
        raise RegistryError(f'{message} Add the structures to segment to "labels".')
    _check_collisions(names, where)
    return names


def channel_names(dataset_json: Mapping[str, Any]) -> tuple[str, ...]:
    """List the names of the channels, in channel order; nnU-Net 1 calls them `modality`."""
    channels = dataset_json.get("channel_names") or dataset_json.get("modality") or {}
    return tuple(str(channels[key]) for key in sorted(channels, key=lambda key: int(key)))


def check_label_values(labels: Any, regions_class_order: Any, file: str | Path, ordered: bool = True) -> None:
    """Check the label values of a dataset or model.

    Args:
        labels: "labels" of a dataset.json, as parsed.
        regions_class_order: "regions_class_order" of it; None if it has none.
        file: The file, for messages.
        ordered: Whether regions need an order.

    Raises:
        DataError: A value is not a whole number from 0 to 32767 or a list of such numbers, two labels have the same
            values, background is not 0, ignore is not the highest value, or the order of regions is missing or wrong.
            The message lists all of these.
    """
    problems = find_label_problems(labels, regions_class_order, ordered)
    if problems:
        raise DataError("\n".join(f"{file}: {problem}" for problem in problems))


def find_label_problems(labels: Any, regions_class_order: Any = None, ordered: bool = True) -> list[str]:
    """Find what is wrong with the label values of a dataset.json; a sentence each, none if all is well."""
    if not isinstance(labels, Mapping) or not labels:
        return [
            f'expected "labels" to map names to values, found {labels!r}. Write for example "labels": {{"background": '
            '0, "liver": 1}.'
        ]
    swapped = _describe_swapped(labels)
    if swapped:
        return [swapped]
    values, problems = _read_values(labels)
    problems += _check_background(labels)
    problems += _find_duplicates(values)
    problems += _check_ignore(labels, values)
    if not problems and (ordered or regions_class_order is not None):
        problems += _check_order(values, regions_class_order)
    return problems


def list_declared_values(labels: Mapping[str, Any]) -> frozenset[int]:
    """Return all values that label maps may hold, background and ignore included; the labels must have been checked."""
    values, _ = _read_values(labels)
    return frozenset(value for several in values.values() for value in several) | {0}


def _describe_swapped(labels: Mapping[str, Any]) -> str:
    swapped = [name for name, value in labels.items() if isinstance(value, str) and not value.isdigit()]
    if not swapped or not all(str(name).isdigit() for name in labels):
        return ""
    value, name = swapped[-1], labels[swapped[-1]]
    return (
        f'"labels" maps values to names ({value!r}: {name!r}), as in nnU-Net 1. Map names to values: '
        f'{{"{name}": {value}}}.'
    )


def _read_values(labels: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """Return the values of each label that has usable ones, and what is wrong with the others."""
    values: Values = {}
    problems = []
    for name, value in labels.items():
        members = list(value) if isinstance(value, (list, tuple)) else [value]
        reason = "; an empty list stands for nothing" if not members else ""
        for member in members:
            reason = reason or _describe_member(member)
        if not reason and len(set(members)) < len(members):
            reason = "; a value occurs twice in it"
        if not reason and 0 in members and len(members) > 1:
            reason = "; 0 is the background and cannot be part of a region"
        if reason:
            problems.append(
                f"label {name!r} has the value {value!r}{reason}. Expected a whole number from 0 to {LARGEST_VALUE}, "
                "or a list of such numbers for a region."
            )
        else:
            values[str(name)] = tuple(members)
    return values, problems


def _describe_member(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"; {value!r} is not a whole number"
    if value < 0:
        return f"; {value} is negative"
    return f"; {value} is too large, since preprocessed label maps have 16 bits" if value > LARGEST_VALUE else ""


def _check_background(labels: Mapping[str, Any]) -> Iterator[str]:
    if BACKGROUND not in labels:
        yield f'there is no label {BACKGROUND!r}. Add "{BACKGROUND}": 0 to "labels".'
    elif labels[BACKGROUND] != 0 or isinstance(labels[BACKGROUND], bool):
        yield f"label {BACKGROUND!r} has the value {labels[BACKGROUND]!r}; nnU-Net requires 0. Renumber the labels."


def _find_duplicates(values: Values) -> Iterator[str]:
    first: dict[frozenset[int], str] = {}
    for name, members in values.items():
        other = first.setdefault(frozenset(members), name)
        if other != name:
            shown = members[0] if len(members) == 1 else list(members)
            yield f"the labels {other!r} and {name!r} have the same value {shown!r}. Give each label its own."


def _check_ignore(labels: Mapping[str, Any], values: Values) -> Iterator[str]:
    if IGNORE not in labels:
        return
    others = max((value for name, members in values.items() if name != IGNORE for value in members), default=0)
    if labels[IGNORE] != others + 1:
        yield (
            f"label {IGNORE!r} has the value {labels[IGNORE]!r}; nnU-Net requires the value after the largest of the "
            f"others, {others + 1}. Renumber the labels."
        )


def _check_order(values: Values, order: Any) -> Iterator[str]:
    """Check the values that are written where regions are predicted; each target needs its own."""
    targets = {name: members for name, members in values.items() if name != IGNORE and members != (0,)}
    several = [name for name, members in targets.items() if len(members) > 1]
    if order is None:
        if several:
            yield (
                f"label {several[0]!r} has several values, but there is no 'regions_class_order'. Add it: one value "
                "for each target, in the order in which targets are written over one another."
            )
        return
    if not isinstance(order, Sequence) or isinstance(order, str) or any(_describe_member(value) for value in order):
        yield f"'regions_class_order' is {order!r}; expected a list of whole numbers, one for each target."
    elif len(order) != len(targets):
        yield (
            f"'regions_class_order' has {len(order)} values, {list(order)!r}, but there are {len(targets)} targets: "
            f"{', '.join(targets)}. Give one value for each target."
        )
    elif len(set(order)) < len(order) or 0 in order:
        yield f"'regions_class_order' is {order!r}; two targets would be written as one value. Give each its own."


def _is_background(value: object) -> bool:
    return value in (0, "0") or value in ([0], (0,))


def _check_collisions(names: tuple[str, ...], where: str) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(normalise(name), name)
        if other != name:
            message = f"{where}: the labels {other!r} and {name!r} differ only in case, spaces, underscores or hyphens."
            raise RegistryError(f"{message} Rename one of them.")
