"""Finds the targets that images of a context cannot show, by where in the body both lie."""

from collections.abc import Collection, Iterable, Mapping
from functools import cache

from duplus_nnunet.prompt_registry.entries import Context, Entry, Target
from duplus_nnunet.prompt_registry.finding import shipped_files
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.regions import EVERY_LEVEL, Levels, can_meet, find_levels, join_levels


def locate_context(context: Context) -> Levels | None:
    """Find the levels of the body that images of a context may show; None if its region is not known."""
    return join_levels(context.regions) if context.regions else find_levels(context.region)


def locate_target(target: Target, contexts: Iterable[Context]) -> Levels | None:
    """Find the levels of the body that a target may lie in.

    They are those of its `regions`. Without these, they are the levels of the contexts in which it is annotated, and of
    the shipped files' targets of the same name.

    Args:
        target: The target.
        contexts: The contexts in which it is annotated. One of the whole body, or of an unknown region, does not say
            where in it the target lies.

    Returns:
        None if they are not known.
    """
    if target.regions:
        return join_levels(target.regions)
    own = _list_definite(contexts)
    shipped = _locate_shipped().get(normalise(target.name))
    if None in own and shipped is None:
        return None
    levels = frozenset().union(*(levels for levels in (*own, shipped) if levels is not None))
    return levels or None


def find_implausible(
    entry: Entry, annotated: Mapping[str, Collection[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    """Find for each context the targets that its images cannot show.

    A target is implausible if none of its levels of the body equals or adjoins one of the context's. Partners are
    implausible together, so that a mirror image has the same implausible targets.

    Args:
        entry: The dataset's registry entry.
        annotated: By context, the names of the targets that are annotated there, which are never implausible; None: all
            targets are annotated in all contexts, but those with `regions` are compared all the same.

    Returns:
        By context, names in the order of the entry's targets; the levels of targets and contexts that are not known
        leave them out.
    """
    contexts, partners = entry.contexts, {target.name: target.partner for target in entry.targets}
    places = {
        target.name: locate_target(
            target, [contexts[key] for key in contexts if annotated is None or target.name in annotated.get(key, ())]
        )
        for target in entry.targets
    }
    found = {}
    for key, context in contexts.items():
        view, known = locate_context(context), () if annotated is None else annotated.get(key, ())
        apart = {name for name, place in places.items() if name not in known and _are_apart(place, view)}
        found[key] = tuple(name for name in places if name in apart and (partners[name] or name) in apart)
    return found


def _are_apart(place: Levels | None, view: Levels | None) -> bool:
    return place is not None and view is not None and not can_meet(place, view)


def _list_definite(contexts: Iterable[Context]) -> list[Levels | None]:
    """List the levels of contexts; None for one of the whole body."""
    found = [locate_context(context) for context in contexts]
    return [None if levels == EVERY_LEVEL else levels for levels in found] or [None]


@cache
def _locate_shipped() -> dict[str, Levels]:
    """Locate the targets of the shipped files, by normalised name."""
    places: dict[str, Levels] = {}
    for file in shipped_files():
        for target in file.targets.values():
            own = [join_levels(target.regions)] if target.regions else _list_definite(file.contexts.values())
            levels = frozenset().union(*(levels for levels in own if levels is not None))
            if levels:
                key = normalise(target.name)
                places[key] = places.get(key, frozenset()) | levels
    return places
