"""Changes of JSON content, and seeded mutations of it for property tests of readers."""

import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

VALUES = (
    None, True, -1, 0, 1.5, 10**6, 2**70, 1e308, float("nan"), float("inf"), "", "x", "../..", [], {}, [0], [1, 1, 1],
    ["x"], {"a": 1}, [[[[1]]]],
)  # fmt: skip


def list_paths(content: Any, start: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List the keys and indices that lead to each value; of long lists to the first four."""
    items = (
        content.items() if isinstance(content, dict) else enumerate(content[:4] if isinstance(content, list) else ())
    )
    for key, value in items:
        yield (*start, key)
        yield from list_paths(value, (*start, key))


def change(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of JSON content with another value at keys that are joined by slashes, such as "a/b/c"."""
    changed = deepcopy(content)
    *above, last = path.split("/")
    node = changed
    for key in above:
        node = node[key]
    node[last] = value
    return changed


def mutate(content: Any, rng: random.Random) -> tuple[Any, str]:
    """Delete, replace or nest one value; each depth is as likely as the others.

    Returns:
        The mutated content, and what was done.
    """
    changed, paths = deepcopy(content), list(list_paths(content))
    depth = rng.choice(sorted({len(path) for path in paths}))
    path = rng.choice([path for path in paths if len(path) == depth])
    node = changed
    for key in path[:-1]:
        node = node[key]
    kind = rng.choice(("delete", "nest", "replace", "replace", "replace"))
    if kind == "delete":
        del node[path[-1]]
    else:
        node[path[-1]] = [node[path[-1]]] if kind == "nest" else rng.choice(VALUES)
    return changed, f"{kind} {'.'.join(map(str, path))}"
