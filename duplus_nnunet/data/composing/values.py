"""Label values of a composed dataset: what each value of each source's label maps becomes.

In a source, a value stands for a set of targets: one, or several where regions overlap. Each different set gets one
value in the composed dataset, so that every target can be read back exactly, whatever was united.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from duplus_nnunet.data.composing.origins import IGNORE, Origin
from duplus_nnunet.data.composing.targets import United

Meaning = frozenset[str]


@dataclass(frozen=True)
class Values:
    """How labels are rewritten.

    Attributes:
        targets: All targets, wider ones before those that they contain.
        labels: dataset.json's labels: a value a target, or several for a region.
        class_order: dataset.json's regions_class_order, None where targets exclude one another.
        tables: By source dataset, the new value of each old one, background included.
        meanings: By source dataset, the targets that each old value stands for.
    """

    targets: tuple[United, ...]
    labels: Mapping[str, int | list[int]]
    class_order: list[int] | None
    tables: Mapping[str, Mapping[int, int]]
    meanings: Mapping[str, Mapping[int, Meaning]]

    @property
    def largest(self) -> int:
        """The largest value that a label map can hold."""
        return max(value for table in self.tables.values() for value in table.values())


def assign_values(origins: Sequence[Origin], united: Sequence[United]) -> Values:
    """Decide on label values, consecutive from 1, the ignore label last."""
    meanings = {origin.dataset: _find_meanings(origin, united) for origin in origins}
    sets = {meaning for found in meanings.values() for meaning in found.values() if meaning}
    targets = _order(united, meanings.values())
    values = _number(targets, sets)
    ignore = len(values) + 1
    tables = {}
    for origin in origins:
        table = {value: values.get(meaning, 0) for value, meaning in meanings[origin.dataset].items()}
        tables[origin.dataset] = {0: 0, **table, **dict.fromkeys(origin.labels.get(IGNORE, ()), ignore)}
    labels: dict[str, int | list[int]] = {"background": 0}
    for one in targets:
        of_target = sorted(value for meaning, value in values.items() if one.target.name in meaning)
        labels[one.target.name] = of_target if len(of_target) > 1 else of_target[0]
    if any(IGNORE in origin.labels for origin in origins):
        labels[IGNORE] = ignore
    overlapping = any(isinstance(value, list) for value in labels.values())
    overlapping = overlapping or any(one.contains(other) for one in targets for other in targets)
    order = [_choose_written(one, meanings, values) for one in targets] if overlapping else None
    return Values(targets, labels, order, tables, meanings)


def _find_meanings(origin: Origin, united: Sequence[United]) -> dict[int, Meaning]:
    names = {one.members[origin.dataset].label: one.target.name for one in united if origin.dataset in one.members}
    found: dict[int, set[str]] = {}
    for label, values in origin.labels.items():
        for value in values if label != IGNORE else ():
            found.setdefault(value, set()).update({names[label]} if label in names else ())
    return {value: frozenset(meaning) for value, meaning in found.items()}


def _order(united: Sequence[United], meanings: Iterable[Mapping[int, Meaning]]) -> tuple[United, ...]:
    """Put wider targets before narrower ones, as nnU-Net writes the later over the earlier; else keep the order."""
    by_source = [
        {one.target.name: {value for value, meaning in found.items() if one.target.name in meaning} for one in united}
        for found in meanings
    ]

    def is_wider(one: United, other: United) -> bool:
        held = [(values[one.target.name], values[other.target.name]) for values in by_source]
        return any(narrow and wide > narrow for wide, narrow in held) or one.contains(other)

    ordered: dict[str, United] = {}

    def put(one: United, narrower: tuple[str, ...]) -> None:
        for other in united:
            if other.target.name not in (*ordered, *narrower) and is_wider(other, one):
                put(other, (*narrower, one.target.name))
        ordered.setdefault(one.target.name, one)

    for one in united:
        put(one, (one.target.name,))
    return tuple(ordered.values())


def _number(targets: Sequence[United], sets: set[Meaning]) -> dict[Meaning, int]:
    """Number the sets of targets by their narrowest target, so that without regions a target's value is its place."""
    place = {one.target.name: index for index, one in enumerate(targets)}

    def rank(meaning: Meaning) -> tuple[int, int, list[int]]:
        places = sorted(place[name] for name in meaning)
        return places[-1], len(places), places

    return {meaning: value for value, meaning in enumerate(sorted(sets, key=rank), start=1)}


def _choose_written(one: United, meanings: Mapping[str, Mapping[int, Meaning]], values: Mapping[Meaning, int]) -> int:
    """Choose the value that nnU-Net writes where it predicts a target.

    In each source that is the value that stands for the fewest other targets. Of several sources the one that tells
    most apart decides: where a tumor is part of the kidney in one of them, a predicted tumor remains part of it.
    """

    def candidates() -> Iterator[Meaning]:
        for dataset in one.members:
            holding = [meaning for meaning in meanings[dataset].values() if one.target.name in meaning]
            yield min(holding, key=lambda meaning: (len(meaning), values[meaning]))

    return values[max(candidates(), key=lambda meaning: (len(meaning), -values[meaning]))]
