"""Assigns the label values of a composed dataset, and the new value of each value in the sources' label maps.

In a source, a value stands for a set of targets: one, or several where regions overlap. Each distinct set gets one
value in the composed dataset, so that every target can be recovered exactly from the composed label maps.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from duplus_nnunet.data.composing.source_datasets import IGNORE, SourceDataset
from duplus_nnunet.data.composing.targets import MergedTarget
from duplus_nnunet.prompt_registry import Target

Meaning = frozenset[str]


@dataclass(frozen=True)
class LabelValues:
    """The label values of a composed dataset.

    Attributes:
        targets: All targets, wider ones before those that they contain.
        labels: "labels" of dataset.json: one value for each target, or several for a region.
        class_order: "regions_class_order" of dataset.json; None if no two targets overlap.
        tables: By source dataset, the new value of each old one, background included.
        meanings: By source dataset, the targets that each old value stands for.
    """

    targets: tuple[MergedTarget, ...]
    labels: Mapping[str, int | list[int]]
    class_order: list[int] | None
    tables: Mapping[str, Mapping[int, int]]
    meanings: Mapping[str, Mapping[int, Meaning]]

    @cached_property
    def by_dataset(self) -> Mapping[str, Sequence[tuple[MergedTarget, Target]]]:
        """For each source dataset, the targets that it declares, and what they are in it."""
        return {
            name: [(merged, merged.members[name]) for merged in self.targets if name in merged.members]
            for name in self.tables
        }

    @property
    def largest(self) -> int:
        """The largest value that occurs in a composed label map."""
        return max(value for table in self.tables.values() for value in table.values())


def assign_values(sources: Sequence[SourceDataset], merged_targets: Sequence[MergedTarget]) -> LabelValues:
    """Assign label values, consecutive from 1, the ignore label last."""
    meanings = {source.dataset: _find_meanings(source, merged_targets) for source in sources}
    sets = {meaning for by_value in meanings.values() for meaning in by_value.values() if meaning}
    targets = _order(merged_targets, meanings.values())
    values = _number(targets, sets)
    ignore = len(values) + 1
    tables = {}
    for source in sources:
        table = {value: values.get(meaning, 0) for value, meaning in meanings[source.dataset].items()}
        tables[source.dataset] = {0: 0, **table, **dict.fromkeys(source.labels.get(IGNORE, ()), ignore)}
    labels: dict[str, int | list[int]] = {"background": 0}
    for merged in targets:
        of_target = sorted(value for meaning, value in values.items() if merged.target.name in meaning)
        labels[merged.target.name] = of_target if len(of_target) > 1 else of_target[0]
    if any(IGNORE in source.labels for source in sources):
        labels[IGNORE] = ignore
    overlapping = any(isinstance(value, list) for value in labels.values())
    overlapping = overlapping or any(merged.contains(other) for merged in targets for other in targets)
    order = [_choose_written(merged, meanings, values) for merged in targets] if overlapping else None
    return LabelValues(targets, labels, order, tables, meanings)


def _find_meanings(source: SourceDataset, merged_targets: Sequence[MergedTarget]) -> dict[int, Meaning]:
    names = {
        merged.members[source.dataset].label: merged.target.name
        for merged in merged_targets
        if source.dataset in merged.members
    }
    meanings: dict[int, set[str]] = {}
    for label, values in source.labels.items():
        for value in values if label != IGNORE else ():
            meanings.setdefault(value, set()).update({names[label]} if label in names else ())
    return {value: frozenset(meaning) for value, meaning in meanings.items()}


def _order(
    merged_targets: Sequence[MergedTarget], meanings: Iterable[Mapping[int, Meaning]]
) -> tuple[MergedTarget, ...]:
    """Put wider targets before narrower ones, as nnU-Net writes later ones over earlier ones; else keep the order."""
    by_source = [
        {
            merged.target.name: {value for value, meaning in by_value.items() if merged.target.name in meaning}
            for merged in merged_targets
        }
        for by_value in meanings
    ]

    def is_wider(merged: MergedTarget, other: MergedTarget) -> bool:
        held = [(values[merged.target.name], values[other.target.name]) for values in by_source]
        return any(narrow and wide > narrow for wide, narrow in held) or merged.contains(other)

    ordered: dict[str, MergedTarget] = {}

    def put(merged: MergedTarget, narrower: tuple[str, ...]) -> None:
        for other in merged_targets:
            if other.target.name not in (*ordered, *narrower) and is_wider(other, merged):
                put(other, (*narrower, merged.target.name))
        ordered.setdefault(merged.target.name, merged)

    for merged in merged_targets:
        put(merged, (merged.target.name,))
    return tuple(ordered.values())


def _number(targets: Sequence[MergedTarget], sets: set[Meaning]) -> dict[Meaning, int]:
    """Number the sets of targets by their narrowest target, so that without regions values follow the target order."""
    index = {merged.target.name: index for index, merged in enumerate(targets)}

    def rank(meaning: Meaning) -> tuple[int, int, list[int]]:
        indices = sorted(index[name] for name in meaning)
        return indices[-1], len(indices), indices

    return {meaning: value for value, meaning in enumerate(sorted(sets, key=rank), start=1)}


def _choose_written(
    merged: MergedTarget, meanings: Mapping[str, Mapping[int, Meaning]], values: Mapping[Meaning, int]
) -> int:
    """Choose the value that nnU-Net writes where it predicts a target.

    In each source this is the value that stands for the fewest other targets. Among several sources the one whose
    value stands for the most targets decides: where a tumor is part of the kidney in one source, a predicted tumor
    stays part of it.
    """

    def candidates() -> Iterator[Meaning]:
        for dataset in merged.members:
            holding = [meaning for meaning in meanings[dataset].values() if merged.target.name in meaning]
            yield min(holding, key=lambda meaning: (len(meaning), values[meaning]))

    return values[max(candidates(), key=lambda meaning: (len(meaning), -values[meaning]))]
