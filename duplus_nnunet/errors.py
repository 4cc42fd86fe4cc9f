"""Exceptions of this package, and messages for unknown names."""

import difflib
from collections.abc import Iterable


class DuplusError(ValueError):
    """Base class of all errors that the user can fix."""


class PromptError(DuplusError):
    """A requested target or context is unknown or ambiguous."""


class RegistryError(DuplusError):
    """A prompt registry file cannot be read, or is inconsistent with itself or its dataset."""


class EncoderError(DuplusError):
    """A text encoder or a stored embedding is missing, damaged, or not the expected one."""


class PlansError(DuplusError):
    """A plans file, or the settings under its key `duplus`, cannot be used."""


class ModelError(DuplusError):
    """A model folder or checkpoint is incomplete, damaged, or not of this package."""


class DataError(DuplusError):
    """A dataset, table or image is missing, damaged or not suitable."""


class HostError(DuplusError):
    """The installed nnU-Net or its environment cannot be used with this package."""


def list_nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """Sort known names by similarity to a name, the most similar first."""

    def distance(candidate: str) -> tuple[float, str]:
        return -difflib.SequenceMatcher(None, name.casefold(), candidate.casefold()).ratio(), candidate

    return sorted(set(known), key=distance)


def describe_unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Build the error message for an unknown name; lists all known names, the most similar first.

    Example:
        >>> describe_unknown("target", "splean", ["liver", "spleen"])
        "Unknown target 'splean'. Did you mean 'spleen'? Valid, nearest first: 'spleen', 'liver'."
    """
    candidates = list_nearest_first(name, known)
    if not candidates:
        return f"Unknown {kind} {name!r}: there is none to choose from."
    listed = ", ".join(map(repr, candidates))
    return f"Unknown {kind} {name!r}. Did you mean {candidates[0]!r}? Valid, nearest first: {listed}."
