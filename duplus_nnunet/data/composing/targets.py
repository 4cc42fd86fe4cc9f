"""Merges the targets of several sources: targets with the same meaning become one, all others stay separate."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from duplus_nnunet.data.composing.source_datasets import IGNORE, SourceDataset, find_dataset
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.prompt_registry import Target, match_target
from duplus_nnunet.prompt_registry.implausible import locate_target
from duplus_nnunet.prompt_registry.names import find_partner, normalise, split_words
from duplus_nnunet.prompt_registry.regions import write_levels

_SIDES = {"left", "right"}


@dataclass(frozen=True)
class MergedTarget:
    """A target of the composed dataset.

    Attributes:
        target: Its texts; the label is the name.
        members: The target of each source that has it, by the dataset of the source.
        words: Normalised names and synonyms by which targets of other sources are recognised as the same.
    """

    target: Target
    members: Mapping[str, Target]
    words: frozenset[str]

    def contains(self, other: "MergedTarget") -> bool:
        """Whether the name of this target is a wider term than the other's, such as "kidneys" and "left kidney".

        False if one source has both targets: there, its label map decides.
        """
        if self.members.keys() & other.members.keys():
            return False
        mine, others = _reduce(self.target.name), _reduce(other.target.name)
        return mine < others and bool(mine - _SIDES)


def merge_targets(sources: Sequence[SourceDataset], spec: Spec) -> list[MergedTarget]:
    """Merge the targets of all sources, in the order in which they first occur.

    Raises:
        DataError: The specification names an unknown source or target, all targets of a source are skipped, or a target
            matches more than one target of the other sources.
    """
    skipped = {dataset: set(names) for dataset, names in _resolve(sources, spec.skip, "skip")}
    renamed = {dataset: dict(names) for dataset, names in _resolve(sources, spec.targets, "targets")}
    merged_targets: list[MergedTarget] = []
    for source in sources:
        kept = [target for target in source.entry.targets if target.name not in skipped.get(source.dataset, ())]
        if not kept:
            raise DataError(f"All targets of {source.dataset} are skipped. Keep one, or leave the source out.")
        for target in kept:
            _add(merged_targets, source, target, renamed.get(source.dataset, {}).get(target.name))
    return _pair(_distinguish([_join_regions(merged, sources) for merged in merged_targets]))


def _resolve(
    sources: Sequence[SourceDataset], given: Mapping[int | str, Iterable[str]], where: str
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield, for each source in a part of the specification, its values by the names of the targets they are for."""
    by_dataset = {source.dataset: source for source in sources}
    for key, words in given.items():
        source = by_dataset[find_dataset(key, by_dataset, where)]
        values = words if isinstance(words, Mapping) else {word: word for word in words}
        names = {}
        for word, value in values.items():
            try:
                names[match_target(word, source.entry.targets)] = value
            except PromptError as error:
                raise DataError(f"`{where}` of the specification, {source.dataset}: {error}") from error
        yield source.dataset, names


def _add(merged_targets: list[MergedTarget], source: SourceDataset, target: Target, new_name: str | None) -> None:
    name = new_name or target.name
    if normalise(name) in ("background", IGNORE):
        raise DataError(f"{source.dataset}: a target cannot be called {name!r}, which nnU-Net reserves.")
    if normalise(name).isdigit():
        raise DataError(f"{source.dataset}: the target {name!r} is a mere number. {_describe_remedy(source, target)}")
    words = frozenset(map(normalise, (name,) if new_name else (name, *target.synonyms)))
    matches = _find(merged_targets, words, normalise(name))
    if len(matches) > 1:
        listed = " or ".join(repr(merged_targets[index].target.name) for index in matches)
        raise DataError(f"The target {name!r} of {source.dataset} matches {listed}. {_describe_remedy(source, target)}")
    if not matches:
        merged_targets.append(MergedTarget(replace(target, name=name, label=name), {source.dataset: target}, words))
        return
    known = merged_targets[matches[0]]
    if source.dataset in known.members:
        raise DataError(
            f"The targets {known.members[source.dataset].name!r} and {target.name!r} of {source.dataset} would both be "
            f"{known.target.name!r}. {_describe_remedy(source, target)}"
        )
    merged_targets[matches[0]] = MergedTarget(
        _merge(known.target, target), {**known.members, source.dataset: target}, known.words | words
    )


def _find(merged_targets: Sequence[MergedTarget], words: frozenset[str], name: str) -> list[int]:
    """Find the targets that a target is the same as: by name if one has that name, else by any name or synonym."""
    by_name = [index for index, merged in enumerate(merged_targets) if normalise(merged.target.name) == name]
    return by_name or [index for index, merged in enumerate(merged_targets) if merged.words & words]


def _describe_remedy(source: SourceDataset, target: Target) -> str:
    return f"Name it in the specification: `targets: {{{source.dataset}: {{{target.label}: NAME}}}}`."


def _merge(first: Target, second: Target) -> Target:
    """Join the texts; a label missing from a case means "not annotated" if it does so in either source."""
    return replace(
        first,
        synonyms=(*first.synonyms, *((second.name,) if second.name != first.name else ()), *second.synonyms),
        paraphrases=(*first.paraphrases, *second.paraphrases),
        missing="not annotated" if "not annotated" in (first.missing, second.missing) else "absent",
        partner=first.partner or second.partner,
    )


def _join_regions(merged: MergedTarget, sources: Sequence[SourceDataset]) -> MergedTarget:
    """Join the parts of the body that a target lies in over its sources; none if one of these does not know them.

    They are written down because in the composed dataset every target is declared beside the contexts of all sources.
    """
    places = [
        locate_target(replace(merged.members[source.dataset], name=merged.target.name), source.entry.contexts.values())
        for source in sources
        if source.dataset in merged.members
    ]
    known = [place for place in places if place is not None]
    regions = write_levels(frozenset().union(*known)) if known and len(known) == len(places) else ()
    return replace(merged, target=replace(merged.target, regions=regions))


def _distinguish(merged_targets: Sequence[MergedTarget]) -> list[MergedTarget]:
    """Remove synonyms and paraphrases that another target already has, so that each text names one target only."""
    taken = {normalise(merged.target.name) for merged in merged_targets}
    worded: set[str] = set()
    result = []
    for merged in merged_targets:
        synonyms = _take_new(merged.target.synonyms, taken)
        target = replace(merged.target, synonyms=synonyms, paraphrases=_take_new(merged.target.paraphrases, worded))
        result.append(replace(merged, target=target))
    return result


def _take_new(texts: Iterable[str], taken: set[str]) -> tuple[str, ...]:
    new = []
    for text in texts:
        if normalise(text) not in taken:
            taken.add(normalise(text))
            new.append(text)
    return tuple(new)


def _pair(merged_targets: Sequence[MergedTarget]) -> list[MergedTarget]:
    """Set the partners of merged targets, where both sides exist."""
    partners: dict[str, str] = {}
    for merged in merged_targets:
        for dataset, member in merged.members.items():
            other = next(
                (
                    candidate
                    for candidate in merged_targets
                    if dataset in candidate.members and candidate.members[dataset].name == member.partner
                ),
                None,
            )
            if other is not None:
                partners.setdefault(merged.target.name, other.target.name)
        if all(member.partner is None for member in merged.members.values()):
            others = (
                candidate.target.name
                for candidate in merged_targets
                if not merged.members.keys() & candidate.members.keys()
            )
            other_side = find_partner(merged.target.name, others)
            if other_side is not None:
                partners.setdefault(merged.target.name, other_side)
    return [
        replace(merged, target=replace(merged.target, partner=partner if partners.get(partner or "") == name else None))
        for merged in merged_targets
        for name, partner in [(merged.target.name, partners.get(merged.target.name))]
    ]


def _reduce(name: str) -> frozenset[str]:
    """Reduce a name to its words in the singular."""
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in split_words(name))
