"""Every error of this package: what was found, what was expected, where, and what to do."""

import difflib
from collections.abc import Iterable


class DuplusError(ValueError):
    """Base of all errors that a user can put right."""


class PromptError(DuplusError):
    """A target or context was asked for that does not exist, or cannot be told apart from another."""


class RegistryError(DuplusError):
    """A prompt registry file cannot be read, or contradicts itself or its dataset."""


class EncoderError(DuplusError):
    """A text encoder or a stored embedding is missing, damaged, or of another kind than expected."""


class PlansError(DuplusError):
    """A plans file, or the settings under its key `duplus`, cannot be used."""


class ModelError(DuplusError):
    """A model folder or checkpoint is incomplete, damaged, or not one of ours."""


class DataError(DuplusError):
    """A dataset or image does not have what is needed from it."""


class HostError(DuplusError):
    """The installed nnU-Net, or what surrounds it, cannot be used with this package."""


def list_nearest_first(found: str, known: Iterable[str]) -> list[str]:
    """Sort valid names so that those most like `found` stand first."""

    def distance(name: str) -> tuple[float, str]:
        return -difflib.SequenceMatcher(None, found.casefold(), name.casefold()).ratio(), name

    return sorted(set(known), key=distance)


def describe_unknown(kind: str, found: str, known: Iterable[str]) -> str:
    """Build the message for a name that is not among the known ones, nearest first, all listed."""
    names = list_nearest_first(found, known)
    if not names:
        return f"Unknown {kind} {found!r}: there is none to choose from."
    listed = ", ".join(repr(name) for name in names)
    return f"Unknown {kind} {found!r}. Did you mean {names[0]!r}? Valid, nearest first: {listed}."
