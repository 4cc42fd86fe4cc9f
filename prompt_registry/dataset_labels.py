"""Reads the labels and channels of an nnU-Net dataset.json and checks that the labels can become targets."""

from collections.abc import Mapping
from typing import Any

from duplus_nnunet.errors import RegistryError
from duplus_nnunet.prompt_registry.names import normalise

_IGNORE = "ignore"


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
    swapped = [name for name, value in labels.items() if isinstance(value, str) and not value.isdigit()]
    if swapped:
        value, name = swapped[-1], labels[swapped[-1]]
        message = f'{where}: "labels" maps values to names ({value!r}: {name!r}), as in nnU-Net 1.'
        raise RegistryError(f'{message} Map names to values: {{"{name}": {value}}}.')
    names = tuple(name for name, value in labels.items() if name != _IGNORE and not _is_background(value))
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


def _is_background(value: object) -> bool:
    return value in (0, "0") or value in ([0], (0,))


def _check_collisions(names: tuple[str, ...], where: str) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(normalise(name), name)
        if other != name:
            message = f"{where}: the labels {other!r} and {name!r} differ only in case, spaces, underscores or hyphens."
            raise RegistryError(f"{message} Rename one of them.")
