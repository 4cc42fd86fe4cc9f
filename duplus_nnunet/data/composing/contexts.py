"""Divides each source into parts whose cases have the same context."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from duplus_nnunet.data.composing.source_datasets import CaseFiles, SourceDataset, find_dataset
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.errors import DataError, PromptError, RegistryError, describe_unknown, list_nearest_first
from duplus_nnunet.prompt_registry import Context, match_context
from duplus_nnunet.prompt_registry.case_contexts import find_case_contexts, name_channels
from duplus_nnunet.prompt_registry.drafting import guess_modality
from duplus_nnunet.prompt_registry.names import normalise


@dataclass(frozen=True)
class ContextCases:
    """The cases of one source that have the same context.

    Attributes:
        name: Name of the part in the case identifiers of the composed dataset.
        source: The source.
        context: Their context.
        channels: Names of the channels that are used.
        training: Training cases by the source's identifiers, with those channels only.
        tests: Test cases in the same form.
    """

    name: str
    source: SourceDataset
    context: Context
    channels: tuple[str, ...]
    training: Mapping[str, CaseFiles]
    tests: Mapping[str, CaseFiles]


def find_parts(sources: Sequence[SourceDataset], spec: Spec) -> list[ContextCases]:
    """Assign a context to every case.

    Raises:
        DataError: The context of a case is ambiguous, the specification names one that does not exist, or the parts
            differ in their number of channels.
    """
    datasets = [source.dataset for source in sources]
    given = {find_dataset(key, datasets, "contexts"): value for key, value in spec.contexts.items()}
    split = set(datasets) if spec.split_channels is True else set()
    if isinstance(spec.split_channels, list):
        split = {find_dataset(key, datasets, "split_channels") for key in spec.split_channels}
    used = {find_dataset(key, datasets, "channels"): names for key, names in spec.channels.items()}
    _require_split(used, split)
    parts: list[ContextCases] = []
    for source in sources:
        choice = given.get(source.dataset)
        if source.dataset in split and len(source.channels) > 1:
            parts += _split_channels(source, choice, used.get(source.dataset, source.channels))
        elif isinstance(choice, Mapping):
            parts += _split_cases(source, {str(pattern): name for pattern, name in choice.items()})
        elif choice is not None:
            context = _match(source, choice)
            parts.append(ContextCases(source.name, source, context, source.channels, source.training, source.tests))
        else:
            parts += _split_by_rules(source)
    _check_channels(parts)
    return parts


def _require_split(used: Mapping[str, Sequence[str]], split: Collection[str]) -> None:
    """Refuse a choice of channels for a source whose channels stay together."""
    for dataset in used:
        if dataset not in split:
            raise DataError(
                f"`channels` of the specification chooses channels of {dataset}, which are not split. Add it to "
                f"`split_channels: [{dataset}]`."
            )


def _split_channels(source: SourceDataset, choice: object, used: Sequence[str]) -> list[ContextCases]:
    unknown = [name for name in used if name not in source.channels]
    if unknown:
        text = describe_unknown("channel", unknown[0], source.channels)
        raise DataError(f"`channels` of the specification, {source.dataset}: {text}")
    if isinstance(choice, str) or (isinstance(choice, Mapping) and not all(str(key).isdigit() for key in choice)):
        raise DataError(
            f"`contexts` of the specification gives {choice!r} for {source.dataset}, whose channels are split. Give "
            f"one context for each channel, by number: `contexts: {{{source.dataset}: {{0: CONTEXT, 1: CONTEXT}}}}`."
        )
    chosen = {int(key): str(name) for key, name in choice.items()} if isinstance(choice, Mapping) else {}
    parts: list[ContextCases] = []
    for index, channel in enumerate(source.channels):
        if channel not in used:
            continue
        context = _match(source, chosen[index]) if index in chosen else _find_of_channel(source, index)
        same = [part for part in parts if part.context == context]
        if same:
            raise DataError(
                f"Two channels of {source.dataset}, {', '.join(map(repr, source.channels))}, would have the context "
                f"{context.name!r}. Name one for each: `contexts: {{{source.dataset}: {{{index}: CONTEXT}}}}`, with "
                f"one of {_list_contexts(source)}."
            )
        name = f"{source.name}-{_make_safe(context.name)}"
        training, tests = (
            {identifier: CaseFiles((files.images[index],), files.label) for identifier, files in cases.items()}
            for cases in (source.training, source.tests)
        )
        parts.append(ContextCases(name, source, context, (channel,), training, tests))
    return parts


def _find_of_channel(source: SourceDataset, index: int) -> Context:
    channel = source.channels[index]
    contexts = [context for context in source.entry.contexts.values() if context.channel]
    named = [context for context in contexts if normalise(context.channel or "") == normalise(channel)]
    modality = guess_modality([channel])
    candidates = named or [context for context in contexts if modality in context.modality]
    if len(candidates) == 1:
        return candidates[0]
    raise DataError(
        f"{len(candidates) or 'No'} contexts of {source.entry.origin} fit channel {index} ({channel!r}) of "
        f"{source.dataset}. Add `channel: {channel}` to one in its prompts.yaml, or name one here: "
        f"`contexts: {{{source.dataset}: {{{index}: CONTEXT}}}}`, with one of {_list_contexts(source)}."
    )


def _split_by_rules(source: SourceDataset) -> list[ContextCases]:
    """Divide a source by its table of cases, and else by the rules of its registry entry."""
    cases = (*source.training, *source.tests)
    chosen = {identifier: source.contexts[identifier] for identifier in cases if identifier in source.contexts}
    others = [identifier for identifier in cases if identifier not in chosen]
    try:
        chosen |= find_case_contexts(source.entry, others, source.channels) if others else {}
    except RegistryError as error:
        raise DataError(f"{error} {_describe_choice(source)}") from error
    return _make_parts(source, chosen)


def _split_cases(source: SourceDataset, patterns: Mapping[str, str]) -> list[ContextCases]:
    contexts = {pattern: _match(source, name) for pattern, name in patterns.items()}
    chosen: dict[str, str] = {}
    for identifier in (*source.training, *source.tests):
        fitting = {contexts[pattern].name for pattern in contexts if re.search(pattern, identifier)}
        if len(fitting) != 1:
            matched = f"those of {', '.join(sorted(fitting))}" if fitting else "none"
            raise DataError(
                f"`contexts` of the specification, {source.dataset}: case {identifier!r} matches {matched} of the "
                f"patterns {', '.join(map(repr, patterns))}; expected one context. Change the patterns."
            )
        chosen[identifier] = fitting.pop()
    return _make_parts(source, chosen)


def _make_parts(source: SourceDataset, chosen: Mapping[str, str]) -> list[ContextCases]:
    """Make a part of the cases of each context.

    Args:
        source: The source.
        chosen: The name of each case's context.
    """
    used = [context for context in source.entry.contexts.values() if context.name in chosen.values()]
    parts = []
    for context in used:
        name = f"{source.name}-{_make_safe(context.name)}" if len(used) > 1 else source.name
        training, tests = (
            {identifier: files for identifier, files in cases.items() if chosen[identifier] == context.name}
            for cases in (source.training, source.tests)
        )
        if not training:
            raise DataError(
                f"{source.dataset}: no training case has the context {context.name!r}, but {len(tests)} of the test "
                "cases have it. Change the patterns under `contexts` of the specification (or the rules in "
                f"{source.entry.origin}), or move cases to imagesTr."
            )
        parts.append(ContextCases(name, source, context, name_channels(context, source.channels), training, tests))
    return parts


def _describe_choice(source: SourceDataset) -> str:
    return (
        "Or name a context in the specification (--spec), one of "
        f"{_list_contexts(source)}: `contexts: {{{source.dataset}: CONTEXT}}`, or one for each pattern of case "
        f"identifiers, `contexts: {{{source.dataset}: {{PATTERN: CONTEXT, PATTERN: CONTEXT}}}}`."
    )


def _match(source: SourceDataset, name: str) -> Context:
    contexts = source.entry.contexts
    try:
        return contexts[match_context(name, contexts)]
    except PromptError as error:
        text = f"`contexts` of the specification, {source.dataset}: {error} They are defined in {source.entry.origin}."
        raise DataError(text) from error


def _list_contexts(source: SourceDataset) -> str:
    return ", ".join(repr(name) for name in list_nearest_first(source.name, source.entry.contexts))


def _make_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)


def _check_channels(parts: Sequence[ContextCases]) -> None:
    first = parts[0]
    for part in parts:
        if len(part.channels) != len(first.channels):
            listed = "; ".join(f"{other.name}: {', '.join(other.channels)}" for other in parts)
            several = [other.source.dataset for other in parts if len(other.channels) > 1]
            raise DataError(
                f"All cases of a dataset need the same number of channels, but the sources have: {listed}. Make a "
                f"source of each channel in the specification (--spec): `split_channels: [{', '.join(several)}]`."
            )
