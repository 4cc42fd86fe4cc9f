"""Damages valid files at random: as people mistype them, as transfers damage them, and as an attacker writes them."""

import copy
import json
import math
import random
import re
import struct
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

_WORDS = (
    "", " ", "null", "~", "true", "no", "0", "-1", "1e999", "nan", "9" * 5000, "2024-13-45", "\u202e", "\x00", "\ud7ff",
    "=cmd|' /C calc'!A0", "CON", "../../x", "a" * 400, "!!int abc", "!!python/object/apply:os.abort []",
    "&a [*a]", "<<: *x", "{", "]", "- -", ": :", "\t", "#", "'", '"', "|", "%", "@", "`", "1:x", "!!timestamp x",
    "!!float 1:x", "60", "0o7", "é", "Ω", "left", "liver",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 70000, 2**63, -(2**70), 0.5, 1.5, -0.0, 1e308, math.nan, math.inf, "", "x", "0",
    "liver", "../x", "\n", "\u202e", "a" * 400, [], {}, [[]], {"x": {}}, [None], [1, "x"], [0, 0, 0], [1, 1, 1],
    [2, 0, 1], [-1, 1, 1], {"0": 0}, "torch.nn.modules.conv.Conv3d", "os.system", "nan", "1e400",
)  # fmt: skip
_INTERESTING = (0, 1, 2, 127, 128, 255)


def mutate_text(content: bytes, rng: random.Random) -> bytes:
    """Change, double, delete, move or nest lines and words of a text."""
    lines = content.decode("utf-8").split("\n")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_TEXT_STEPS)(lines, rng)
    text = "\n".join(lines)
    if rng.random() < 0.05:
        return rng.choice((b"\xff\xfe", b"\xef\xbb\xbf", b"\xff", b"\x00")) + text.encode("utf-8")
    return text.encode("utf-8", "replace")


def _change_word(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    words = re.split(r"([\s,:;]+)", lines[at])
    words[rng.randrange(len(words))] = rng.choice(_WORDS)
    lines[at] = "".join(words)


def _insert(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    lines[at] = lines[at][: (k := rng.randrange(len(lines[at]) + 1))] + rng.choice(_WORDS) + lines[at][k:]


def _repeat(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    lines[at:at] = [lines[at]] * rng.choice((1, 1, 2, 1000))


def _delete(lines: list[str], rng: random.Random) -> None:
    if len(lines) > 1:
        del lines[rng.randrange(len(lines))]


def _swap(lines: list[str], rng: random.Random) -> None:
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _indent(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    lines[at] = rng.choice((" ", "  ", "\t", "- ")) + lines[at] if rng.random() < 0.5 else lines[at].lstrip()


def _nest(lines: list[str], rng: random.Random) -> None:
    depth = rng.choice((10, 200, 3000))
    lines.insert(rng.randrange(len(lines) + 1), "x: " + "[" * depth + "]" * depth)


def _alias(lines: list[str], rng: random.Random) -> None:
    bomb = ['a0: &a0 ["x","x","x","x","x","x","x","x","x"]']
    bomb += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    at = rng.randrange(len(lines) + 1)
    lines[at:at] = bomb


def _cut(lines: list[str], rng: random.Random) -> None:
    del lines[max(1, rng.randrange(len(lines))) :]


_TEXT_STEPS = (_change_word,) * 6 + (_insert,) * 4 + (_repeat, _delete, _delete, _swap, _indent, _nest, _alias, _cut)


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Change values, keys and types somewhere in a JSON file; rarely its text."""
    if rng.random() < 0.1:
        return mutate_text(content, rng)
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2))):
        _change_tree(tree, rng)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "replace")


def _change_tree(tree: Any, rng: random.Random) -> None:
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return
        key = rng.choice(list(keys))
        child = node[key]
        if isinstance(child, (dict, list)) and child and rng.random() < 0.75:
            node = child
            continue
        break
    what = rng.random()
    if what < 0.25:
        del node[key]
    elif what < 0.35 and isinstance(node, dict):
        node[rng.choice(_WORDS)] = node.pop(key)
    elif what < 0.5 and isinstance(child, (int, float)) and not isinstance(child, bool):
        node[key] = rng.choice((-child, child + 1, child * 1000, str(child), [child], child / 3))
    elif what < 0.6 and isinstance(child, (dict, list)):
        node[key] = [copy.deepcopy(child)] if isinstance(child, dict) else {"0": copy.deepcopy(child)}
    else:
        node[key] = copy.deepcopy(rng.choice(_VALUES))


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    """Flip 1 to 32 bits anywhere."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 32)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut the file off, append to it, or overwrite a part with zeros, random bytes or a copy of another."""
    what = rng.random()
    if what < 0.5:
        return flip_bits(content, rng)
    if what < 0.7:
        return content[: rng.randrange(len(content))]
    if what < 0.75:
        return content + rng.randbytes(rng.choice((1, 100, 5000)))
    start, size = rng.randrange(len(content)), rng.choice((1, 16, 200, 4000))
    source = rng.randrange(len(content))
    filling = rng.choice((bytes(size), rng.randbytes(size), content[source : source + size]))
    return content[:start] + filling + content[start + len(filling) :]


# Offsets, format and extreme values of the fields of a NIfTI-1 header that say what the voxels are and where.
_FIELDS = (
    (0, "i", (348, 0, 540, 1)), (40, "h", (0, 1, 2, 3, 4, 5, 7, 8, -1)), (42, "h", (0, 1, -1, 2, 23, 25, 32767)),
    (44, "h", (0, 1, -1, 2, 23, 25, 32767)), (46, "h", (0, 1, -1, 2, 23, 25, 32767)), (48, "h", (0, 1, 2, -1)),
    (50, "h", (0, 1, 2, -1)), (70, "h", (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 1792, 2048, 2304)),
    (72, "h", (0, 1, 8, 16, 24, 32, 64, 128)), (76, "f", (-1, 0, 1, 5, math.nan)),
    (80, "f", (0, -4, 1e-3, 120, 1e9, 4000, math.nan, math.inf)),
    (84, "f", (0, -4, 1e-3, 120, 1e9, 4000, math.nan, math.inf)),
    (88, "f", (0, -4, 1e-3, 120, 1e9, 4000, math.nan, math.inf)),
    (108, "f", (0, 1, 348, 351, 353, 354, 368, 544, 1e6, -1, math.nan)),
    (112, "f", (0, -1, 2, 1e-30, 1e30, math.nan, math.inf)), (116, "f", (0, -1024, 1e30, math.nan)),
    (123, "B", (0, 1, 2, 3, 10, 255)), (252, "h", (0, 1, 2, 4, -1, 77)), (254, "h", (0, 1, 2, 4, -1, 77)),
    *((offset, "f", (0, 0.5, 1, -1, 2, math.nan)) for offset in (256, 260, 264)),
    *((offset, "f", (0, 10, 1e9, math.nan, math.inf)) for offset in (268, 272, 276)),
    *((offset, "f", (0, 4, -4, 0.1, 2, 120, math.nan, math.inf)) for offset in range(280, 328, 4)),
    (344, "B", _INTERESTING), (345, "B", _INTERESTING), (346, "B", (ord("1"), ord("2"), 0)), (347, "B", _INTERESTING),
)  # fmt: skip


def mutate_nifti(content: bytes, rng: random.Random) -> bytes:
    """Set fields of a NIfTI-1 header (of an uncompressed file) to extreme values; rarely damage its bytes or length."""
    if rng.random() < 0.1:
        header = flip_bits(content[:352], rng)
        return header + content[352:]
    if rng.random() < 0.05:
        return content[: rng.randrange(len(content))]
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        offset, form, values = rng.choice(_FIELDS)
        struct.pack_into("<" + form, damaged, offset, rng.choice(values))
    return bytes(damaged)
