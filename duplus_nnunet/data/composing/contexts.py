"""Parts of a source that share a context: a source and the user's choice go in, a context for every case comes out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from duplus_nnunet.data.composing.origins import CaseFiles, Origin, find_dataset
from duplus_nnunet.data.composing.spec import Spec
from duplus_nnunet.errors import DataError, PromptError, list_nearest_first
from duplus_nnunet.prompt_registry import Context, match_context
from duplus_nnunet.prompt_registry.drafting import guess_modality
from duplus_nnunet.prompt_registry.names import normalise


@dataclass(frozen=True)
class ContextCases:
    """Cases of one source that have one context.

    Attributes:
        name: How the part is called in case names.
        origin: The source.
        context: Their context.
        channels: Names of the channels that are taken.
        training: Cases by the source's identifiers, with those channels alone.
        tests: Test cases in the same way.
    """

    name: str
    origin: Origin
    context: Context
    channels: tuple[str, ...]
    training: Mapping[str, CaseFiles]
    tests: Mapping[str, CaseFiles]


def find_parts(origins: Sequence[Origin], spec: Spec) -> list[ContextCases]:
    """Give every case a context.

    Raises:
        DataError: It is not clear which one, the specification names one that does not exist, or the numbers of
            channels differ.
    """
    datasets = [origin.dataset for origin in origins]
    given = {find_dataset(key, datasets, "contexts"): value for key, value in spec.contexts.items()}
    split = set(datasets) if spec.split_channels is True else set()
    if isinstance(spec.split_channels, list):
        split = {find_dataset(key, datasets, "split_channels") for key in spec.split_channels}
    parts: list[ContextCases] = []
    for origin in origins:
        choice = given.get(origin.dataset)
        if origin.dataset in split and len(origin.channels) > 1:
            parts += _split_channels(origin, choice)
        elif isinstance(choice, Mapping):
            parts += _split_cases(origin, {str(pattern): name for pattern, name in choice.items()})
        else:
            context = _find_only(origin) if choice is None else _match(origin, choice)
            parts.append(ContextCases(origin.name, origin, context, origin.channels, origin.training, origin.tests))
    _check_channels(parts)
    return parts


def _split_channels(origin: Origin, choice: object) -> list[ContextCases]:
    if isinstance(choice, str) or (isinstance(choice, Mapping) and not all(str(key).isdigit() for key in choice)):
        raise DataError(
            f"`contexts` of the specification gives {choice!r} for {origin.dataset}, whose channels are split. Give a "
            f"context a channel, by number: `contexts: {{{origin.dataset}: {{0: CONTEXT, 1: CONTEXT}}}}`."
        )
    chosen = {int(key): str(name) for key, name in choice.items()} if isinstance(choice, Mapping) else {}
    parts: list[ContextCases] = []
    for index, channel in enumerate(origin.channels):
        context = _match(origin, chosen[index]) if index in chosen else _find_of_channel(origin, index)
        same = [part for part in parts if part.context == context]
        if same:
            raise DataError(
                f"Two channels of {origin.dataset}, {', '.join(map(repr, origin.channels))}, would have the context "
                f"{context.name!r}. Say which is which: `contexts: {{{origin.dataset}: {{{index}: CONTEXT}}}}`, with "
                f"one of {_list_contexts(origin)}."
            )
        name = f"{origin.name}-{_make_safe(context.name)}"
        training, tests = (
            {identifier: CaseFiles((files.images[index],), files.label) for identifier, files in cases.items()}
            for cases in (origin.training, origin.tests)
        )
        parts.append(ContextCases(name, origin, context, (channel,), training, tests))
    return parts


def _find_of_channel(origin: Origin, index: int) -> Context:
    channel = origin.channels[index]
    contexts = [context for context in origin.entry.contexts.values() if context.channel]
    named = [context for context in contexts if normalise(context.channel or "") == normalise(channel)]
    modality = guess_modality([channel])
    found = named or [context for context in contexts if modality in context.modality]
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"No context, or more than one, of {origin.entry.origin} is for channel {index} ({channel!r}) of "
        f"{origin.dataset}. Add `channel: {channel}` to one in its prompts.yaml, or name one here: "
        f"`contexts: {{{origin.dataset}: {{{index}: CONTEXT}}}}`, with one of {_list_contexts(origin)}."
    )


def _split_cases(origin: Origin, patterns: Mapping[str, str]) -> list[ContextCases]:
    contexts = {pattern: _match(origin, name) for pattern, name in patterns.items()}
    chosen: dict[str, str] = {}
    for identifier in (*origin.training, *origin.tests):
        fitting = {contexts[pattern].name for pattern in contexts if re.search(pattern, identifier)}
        if len(fitting) != 1:
            found = f"fits those of {', '.join(sorted(fitting))}" if fitting else "fits none"
            raise DataError(
                f"`contexts` of the specification, {origin.dataset}: case {identifier!r} {found} of the patterns "
                f"{', '.join(map(repr, patterns))}; expected one. Change them."
            )
        chosen[identifier] = fitting.pop()
    used = {context.name: context for context in contexts.values() if context.name in chosen.values()}
    parts = []
    for context in used.values():
        name = f"{origin.name}-{_make_safe(context.name)}" if len(used) > 1 else origin.name
        training, tests = (
            {identifier: files for identifier, files in cases.items() if chosen[identifier] == context.name}
            for cases in (origin.training, origin.tests)
        )
        if not training:
            raise DataError(
                f"`contexts` of the specification, {origin.dataset}: no training case has the context "
                f"{context.name!r}, but {len(tests)} of the test cases have it. Change the "
                "patterns, or move cases to imagesTr."
            )
        parts.append(ContextCases(name, origin, context, origin.channels, training, tests))
    return parts


def _find_only(origin: Origin) -> Context:
    """Find the context that is meant where the user names none: of several channels, that of all together."""
    contexts = list(origin.entry.contexts.values())
    if len(origin.channels) > 1 and len(contexts) > 1:
        contexts = [context for context in contexts if context.channel is None]
    if len(contexts) == 1:
        return contexts[0]
    raise DataError(
        f"{origin.dataset} may be any of the contexts {_list_contexts(origin)}. Name one in the specification "
        f"(--spec), `contexts: {{{origin.dataset}: CONTEXT}}`, or one a pattern of case identifiers, "
        f"`contexts: {{{origin.dataset}: {{PATTERN: CONTEXT, PATTERN: CONTEXT}}}}`."
    )


def _match(origin: Origin, name: str) -> Context:
    contexts = origin.entry.contexts
    try:
        return contexts[match_context(name, contexts)]
    except PromptError as error:
        text = f"`contexts` of the specification, {origin.dataset}: {error} They stand in {origin.entry.origin}."
        raise DataError(text) from error


def _list_contexts(origin: Origin) -> str:
    return ", ".join(repr(name) for name in list_nearest_first(origin.name, origin.entry.contexts))


def _make_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)


def _check_channels(parts: Sequence[ContextCases]) -> None:
    first = parts[0]
    for part in parts:
        if len(part.channels) != len(first.channels):
            listed = "; ".join(f"{one.name}: {', '.join(one.channels)}" for one in parts)
            several = [one.origin.dataset for one in parts if len(one.channels) > 1]
            raise DataError(
                f"All cases of a dataset need the same number of channels, but the sources have: {listed}. Make a "
                f"source of each channel in the specification (--spec): `split_channels: [{', '.join(several)}]`."
            )
