"""One list of targets from several sources': those of the same meaning become one, all others stay apart.

In: sources with their prompts, and what the user decided. Out: united targets, in the order in which they were met.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from duplus_nnunet.data.composing.origins import IGNORE, Origin, find_dataset
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.prompt_registry import Target, match_target
from duplus_nnunet.prompt_registry.names import find_partner, normalise, split_words

_SIDES = {"left", "right"}


@dataclass(frozen=True)
class United:
    """A target of the composed dataset.

    Attributes:
        target: Its texts; the label is the name.
        members: The target of each source that has it, by the source's dataset.
        words: Normalised names and synonyms by which a target of another source is known to be the same.
    """

    target: Target
    members: Mapping[str, Target]
    words: frozenset[str]

    def contains(self, other: "United") -> bool:
        """Tell whether by their names this one is a wider term, such as "kidneys" beside "left kidney".

        Of two that one source tells apart nothing is said: there its label map decides.
        """
        if self.members.keys() & other.members.keys():
            return False
        mine, others = _reduce(self.target.name), _reduce(other.target.name)
        return mine < others and bool(mine - _SIDES)


def unite_targets(origins: Sequence[Origin], spec: Spec) -> list[United]:
    """Unite the sources' targets.

    Raises:
        DataError: The specification names an unknown source or target, nothing is left, or a target may be any of two.
    """
    skipped = {dataset: set(names) for dataset, names in _resolve(origins, spec.skip, "skip")}
    renamed = {dataset: dict(names) for dataset, names in _resolve(origins, spec.targets, "targets")}
    united: list[United] = []
    for origin in origins:
        kept = [target for target in origin.entry.targets if target.name not in skipped.get(origin.dataset, ())]
        if not kept:
            raise DataError(f"All targets of {origin.dataset} are skipped. Keep one, or leave the source out.")
        for target in kept:
            _add(united, origin, target, renamed.get(origin.dataset, {}).get(target.name))
    return _pair(_distinguish(united))


def _resolve(
    origins: Sequence[Origin], given: Mapping[int | str, Iterable[str]], where: str
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield, for each source of the specification, the names of the targets meant, each with what was given for it."""
    by_dataset = {origin.dataset: origin for origin in origins}
    for key, words in given.items():
        origin = by_dataset[find_dataset(key, by_dataset, where)]
        values = words if isinstance(words, Mapping) else {word: word for word in words}
        names = {}
        for word, value in values.items():
            try:
                names[match_target(word, origin.entry.targets)] = value
            except PromptError as error:
                raise DataError(f"`{where}` of the specification, {origin.dataset}: {error}") from error
        yield origin.dataset, names


def _add(united: list[United], origin: Origin, target: Target, new_name: str | None) -> None:
    name = new_name or target.name
    if normalise(name) in ("background", IGNORE):
        raise DataError(f"{origin.dataset}: a target cannot be called {name!r}, which nnU-Net reserves.")
    words = frozenset(map(normalise, (name,) if new_name else (name, *target.synonyms)))
    places = _find(united, words, normalise(name))
    if len(places) > 1:
        listed = " or ".join(repr(united[place].target.name) for place in places)
        raise DataError(f"The target {name!r} of {origin.dataset} may be {listed}. {_say_remedy(origin, target)}")
    if not places:
        united.append(United(replace(target, name=name, label=name), {origin.dataset: target}, words))
        return
    known = united[places[0]]
    if origin.dataset in known.members:
        raise DataError(
            f"The targets {known.members[origin.dataset].name!r} and {target.name!r} of {origin.dataset} would both be "
            f"{known.target.name!r}. {_say_remedy(origin, target)}"
        )
    united[places[0]] = United(
        _merge(known.target, target), {**known.members, origin.dataset: target}, known.words | words
    )


def _find(united: Sequence[United], words: frozenset[str], name: str) -> list[int]:
    """Find what a target is the same as: by name if there is one of that name, else by any word."""
    by_name = [place for place, one in enumerate(united) if normalise(one.target.name) == name]
    return by_name or [place for place, one in enumerate(united) if one.words & words]


def _say_remedy(origin: Origin, target: Target) -> str:
    return f"Say which in the specification: `targets: {{{origin.dataset}: {{{target.label}: NAME}}}}`."


def _merge(first: Target, second: Target) -> Target:
    """Join the texts. Where one source leaves a target out of some cases without a meaning, so does the whole."""
    return replace(
        first,
        synonyms=(*first.synonyms, *((second.name,) if second.name != first.name else ()), *second.synonyms),
        paraphrases=(*first.paraphrases, *second.paraphrases),
        missing="not annotated" if "not annotated" in (first.missing, second.missing) else "absent",
        partner=first.partner or second.partner,
    )


def _distinguish(united: Sequence[United]) -> list[United]:
    """Let no two targets go by one text: names come first, then synonyms and paraphrases in order."""
    taken = {normalise(one.target.name) for one in united}
    worded: set[str] = set()
    result = []
    for one in united:
        synonyms = _take_new(one.target.synonyms, taken)
        target = replace(one.target, synonyms=synonyms, paraphrases=_take_new(one.target.paraphrases, worded))
        result.append(replace(one, target=target))
    return result


def _take_new(texts: Iterable[str], taken: set[str]) -> tuple[str, ...]:
    new = []
    for text in texts:
        if normalise(text) not in taken:
            taken.add(normalise(text))
            new.append(text)
    return tuple(new)


def _pair(united: Sequence[United]) -> list[United]:
    """Point partners at united targets, where both sides are there."""
    partners: dict[str, str] = {}
    for one in united:
        for dataset, member in one.members.items():
            other = next(
                (two for two in united if dataset in two.members and two.members[dataset].name == member.partner), None
            )
            if other is not None:
                partners.setdefault(one.target.name, other.target.name)
        if all(member.partner is None for member in one.members.values()):
            others = (two.target.name for two in united if not one.members.keys() & two.members.keys())
            other_side = find_partner(one.target.name, others)
            if other_side is not None:
                partners.setdefault(one.target.name, other_side)
    return [
        replace(one, target=replace(one.target, partner=partner if partners.get(partner or "") == name else None))
        for one in united
        for name, partner in [(one.target.name, partners.get(one.target.name))]
    ]


def _reduce(name: str) -> frozenset[str]:
    """Reduce a name to its words in the singular."""
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in split_words(name))
