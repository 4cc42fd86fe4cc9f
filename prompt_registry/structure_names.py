"""Finds the targets that the names of structures in clinical files mean, such as `Kidney_L` or `SpinalCord`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from duplus_nnunet.prompt_registry.finding import shipped_files, users_registry
from duplus_nnunet.prompt_registry.names import normalise, spell_out

# Volumes of radiotherapy: which tumour they hold, no name says.
_VOLUMES = re.compile(r"^i?(gtv|ctv|ptv|itv)", re.IGNORECASE)


@dataclass(frozen=True)
class NameMatch:
    """What a name means.

    Attributes:
        target: The target; empty if none is certain.
        reason: Why there is none.
    """

    target: str
    reason: str = ""


def match_structures(names: Sequence[str], by_hand: Iterable[tuple[str, str]] = ()) -> dict[str, NameMatch]:
    """Find the target of each structure by the names and synonyms of the registry's targets.

    Labels of datasets are not compared: `lad` is an adrenal gland in one of them, and an artery elsewhere. A name that
    several targets have as a synonym is left open, and so are the volumes of radiotherapy (GTV, CTV, PTV, ITV).

    Args:
        names: Names of the structures of all files; the other side of a pair may be in any of them.
        by_hand: Name and target, as the user decided; case and separators of the name do not matter.
    """
    decided = {normalise(name): target for name, target in by_hand}
    return {
        name: NameMatch(decided[normalise(name)]) if normalise(name) in decided else _match(name, names)
        for name in names
    }


def _match(name: str, names: Sequence[str]) -> NameMatch:
    if _VOLUMES.match(name.strip()):
        return NameMatch("", "a volume of radiotherapy, whose tumor its name does not say")
    exact, synonyms = _list_words()
    for wording in (name, spell_out(name, names)):
        key = normalise(wording)
        if key in exact:
            return NameMatch(exact[key])
        targets = synonyms.get(key, frozenset())
        if len(targets) == 1:
            return NameMatch(next(iter(targets)))
        if targets:
            return NameMatch("", f"may be {' or '.join(map(repr, sorted(targets)))}")
    return NameMatch("", "no target of the registry has this name or synonym")


@cache
def _list_words() -> tuple[dict[str, str], dict[str, frozenset[str]]]:
    """Return the targets by normalised name, and by normalised synonym."""
    targets = [target for file in (*users_registry(), *shipped_files()) for target in file.targets.values()]
    exact = {normalise(target.name): target.name for target in targets}
    synonyms: dict[str, frozenset[str]] = {}
    for target in targets:
        for word in target.synonyms:
            key = normalise(word)
            synonyms[key] = synonyms.get(key, frozenset()) | {target.name}
    return exact, synonyms
