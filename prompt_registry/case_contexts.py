"""Finds the context of each case of a dataset, by the rules of its registry entry, and refuses to guess."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from duplus_nnunet.errors import RegistryError
from duplus_nnunet.prompt_registry.drafting import UNKNOWN_MODALITY, guess_modality
from duplus_nnunet.prompt_registry.entries import Context, Entry

_SHOWN = 5


def find_case_contexts(entry: Entry, identifiers: Iterable[str], channels: Sequence[str]) -> dict[str, str]:
    """Find the context of each case.

    An entry with one context and no rules gives it to all cases. Otherwise a case has the one context whose `cases` and
    `ids` fit its identifier.

    Args:
        entry: The dataset's registry entry.
        identifiers: nnU-Net's case identifiers.
        channels: Names of the dataset's channels.

    Returns:
        The name of each case's context.

    Raises:
        RegistryError: The entry has several contexts and no rules, or a case fits none of them, or more than one.
    """
    contexts, identifiers = list_candidates(entry, channels), list(identifiers)
    if len(contexts) > 1 and not any(map(_has_rule, contexts)):
        raise RegistryError(_describe_no_rules(entry, contexts, identifiers))
    fitting = {
        identifier: [context.name for context in contexts if fits(context, identifier, len(contexts) == 1)]
        for identifier in identifiers
    }
    problems = [*_list_problems(entry, contexts, fitting)]
    if problems:
        raise RegistryError("\n".join(problems))
    return {identifier: names[0] for identifier, names in fitting.items()}


def list_candidates(entry: Entry, channels: Sequence[str]) -> list[Context]:
    """List the contexts that a case may have; in a dataset of several channels, those of all channels together."""
    contexts = list(entry.contexts.values())
    together = [context for context in contexts if context.channel is None]
    return together if len(channels) > 1 and len(contexts) > 1 and together else contexts


def fits(context: Context, identifier: str, alone: bool = False) -> bool:
    """Report whether a case identifier fits the rules of a context, its `cases` and its `ids`.

    Args:
        context: The context.
        identifier: The case identifier.
        alone: Whether there is no other context; then one without rules fits, and so does a name without a number.
    """
    if context.cases and not any(re.fullmatch(pattern, identifier) for pattern in context.cases):
        return False
    if not context.ids:
        return bool(context.cases) or alone
    numbers = re.findall(r"\d+", identifier)
    return any(low <= int(numbers[-1]) <= high for low, high in context.ids) if numbers else alone


def name_channels(context: Context, channels: Sequence[str]) -> tuple[str, ...]:
    """Return the channel names of a context's cases, from which nnU-Net chooses the normalisation.

    A dataset of several modalities may call its channel by a name of none, such as `either_CT_or_MR`; the context's own
    channel name stands in for it.
    """
    if len(channels) == 1 and context.channel is not None and guess_modality(channels) == UNKNOWN_MODALITY:
        return (context.channel,)
    return tuple(channels)


def strip_rules(context: Context) -> Context:
    """Return a context without what distinguishes it from others of its dataset: channel, and rules for cases."""
    return replace(context, channel=None, cases=(), ids=(), not_annotated=())


def count_contexts(assigned: Mapping[str, str]) -> str:
    """Describe how many cases have each context, such as `amos_ct 200, amos_mr 40`."""
    names = list(assigned.values())
    return ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(sorted(names)))


def _has_rule(context: Context) -> bool:
    return bool(context.cases or context.ids)


def _describe_no_rules(entry: Entry, contexts: Sequence[Context], identifiers: Sequence[str]) -> str:
    example = f" (such as {identifiers[0]!r})" if identifiers else ""
    listed = ", ".join(f"{context.name!r} ({context.modality})" for context in contexts)
    return (
        f"{entry.dataset}: {entry.origin} has the contexts {listed}, and nothing says which of its {len(identifiers)} "
        f"cases{example} belong to which. {_describe_remedy(entry)}"
    )


def _describe_remedy(entry: Entry) -> str:
    return (
        f"In the prompts.yaml beside dataset.json (`duplus prompts draft {entry.dataset}` writes one), give each "
        "context `cases: [...]`, with case names or regular expressions that match whole names, or `ids: [1-500]`, "
        "with ranges of the last number in a name; or leave only the context that all cases have."
    )


def _list_problems(entry: Entry, contexts: Sequence[Context], fitting: Mapping[str, Collection[str]]) -> Iterator[str]:
    rules = "; ".join(f"{context.name}: {describe_rule(context) or 'none'}" for context in contexts)
    for count, what in ((0, "fit no context"), (2, "fit more than one context")):
        cases = [name for name, names in fitting.items() if min(len(names), 2) == count]
        if cases:
            shown = ", ".join(map(repr, cases[:_SHOWN])) + (", ..." if len(cases) > _SHOWN else "")
            yield (
                f"{entry.dataset}: {len(cases)} of {len(fitting)} cases {what} of {entry.origin} ({shown}). Its rules "
                f"are {rules}. {_describe_remedy(entry)}"
            )


def describe_rule(context: Context) -> str:
    """Describe the cases of a context by its rules, such as `ids 1-500`; empty without rules."""
    cases = f"cases {', '.join(context.cases)}" if context.cases else ""
    ids = f"ids {', '.join(f'{low}-{high}' for low, high in context.ids)}" if context.ids else ""
    return " and ".join(part for part in (cases, ids) if part)
