"""Packs the section `duplus` of plans with thousands of texts, so that a plans file stays small and opens quickly.

A packed section has version 2. Its embeddings are one block instead of a text each, and a context whose target prompts
equal those of an earlier one names that context instead of repeating them. Sections with fewer texts are left as they
are: they can be edited by hand, and earlier versions of the package read them.

The start-up hook may import this module, so it needs the standard library only.
"""

import base64
import binascii
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from duplus_nnunet.errors import PlansError
from duplus_nnunet.plans_section import BASE_KEY, PACKED_VERSION, PLANS_KEY

# Fewest texts with an embedding of a section that is packed.
LEAST_TEXTS = 2000
_BYTES_A_NUMBER = 2
# Characters of a text that are decoded at once; a multiple of 4.
_PART = 1 << 16
# Bytes that zlib makes of one, at most.
_MOST_EXPANSION = 1032

Section = Mapping[str, Any]


class PackedEmbeddings(Mapping[str, str]):
    """Embedding of each text as text, made when it is asked for.

    Args:
        texts: N texts.
        length: Length E of an embedding.
        block: Second bytes of all N x E float16 numbers, then their first bytes.

    Attributes:
        length: Length E of an embedding.
    """

    def __init__(self, texts: Sequence[str], length: int, block: bytes | bytearray) -> None:
        self.length = length
        self._rows = {text: row for row, text in enumerate(texts)}
        self._block = block

    def __getitem__(self, text: str) -> str:
        first, second = self._rows[text] * self.length, len(self._block) // 2 + self._rows[text] * self.length
        vector = bytearray(self.length * _BYTES_A_NUMBER)
        vector[1::2] = self._block[first : first + self.length]
        vector[0::2] = self._block[second : second + self.length]
        return base64.b64encode(vector).decode("ascii")

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, text: object) -> bool:
        return text in self._rows


def pack_plans(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Return plans with a packed section, also that of a base model; the content of others is returned unchanged."""
    section = plans.get(PLANS_KEY)
    if not isinstance(section, Mapping):
        return dict(plans)
    packed = pack_section(section)
    base = packed.get(BASE_KEY)
    if isinstance(base, Mapping) and isinstance(base.get("section"), Mapping):
        packed[BASE_KEY] = {**base, "section": pack_section(base["section"])}
    return {**plans, PLANS_KEY: packed}


def pack_section(section: Section) -> dict[str, Any]:
    """Return a section packed, if it has many texts and all their embeddings have the same length."""
    embeddings = section["embeddings"]
    if is_packed(embeddings) or len(embeddings) < LEAST_TEXTS:
        return dict(section)
    vectors = [base64.b64decode(vector) for vector in embeddings.values()]
    if len({len(vector) for vector in vectors}) > 1:
        return dict(section)
    return {
        **section,
        "version": PACKED_VERSION,
        "contexts": _share_prompts(section["contexts"]),
        "embeddings": {
            "length": len(vectors[0]) // _BYTES_A_NUMBER,
            "texts": list(embeddings),
            "vectors": _compress(b"".join(vectors)),
        },
    }


def unpack_section(section: Section) -> dict[str, Any]:
    """Return a section unpacked; a section that is not packed is returned unchanged.

    Contexts that share target prompts hold the same object.

    Raises:
        PlansError: A packed part is damaged, or a context shares the target prompts of an unknown one.
    """
    unpacked = dict(section)
    if is_packed(section.get("embeddings")):
        unpacked["embeddings"] = _unpack_embeddings(section["embeddings"])
    contexts = section.get("contexts")
    if isinstance(contexts, Mapping) and any(find_shared(context) is not None for context in contexts.values()):
        unpacked["contexts"] = {
            key: context if find_shared(context) is None else {**context, "target_prompts": _follow(contexts, key)}
            for key, context in contexts.items()
        }
    return unpacked


def is_packed(embeddings: object) -> bool:
    """Whether the embeddings of a section are packed."""
    return isinstance(embeddings, Mapping) and isinstance(embeddings.get("texts"), list)


def find_shared(context: object) -> str | None:
    """Return the key of the context whose target prompts a context of a packed section shares; None: it has its own."""
    prompts = context.get("target_prompts") if isinstance(context, Mapping) else None
    return prompts if isinstance(prompts, str) else None


def _share_prompts(contexts: Section) -> dict[str, Any]:
    shared: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, context in contexts.items():
        prompts = context["target_prompts"]
        first = next((other for other, known in own.items() if list(known.items()) == list(prompts.items())), None)
        if first is None:
            own[key] = prompts
        shared[key] = context if first is None else {**context, "target_prompts": first}
    return shared


def _follow(contexts: Section, key: str) -> Any:
    shared = contexts[key]["target_prompts"]
    first = contexts.get(shared)
    prompts = first.get("target_prompts") if isinstance(first, Mapping) else None
    if not isinstance(prompts, Mapping):
        raise PlansError(
            f"duplus.contexts.{key}.target_prompts is {shared!r}, which is no context with target prompts of its own. "
            "Undo that, or plan the dataset again."
        )
    return prompts


def _compress(raw: bytes) -> str:
    """Compress float16 numbers: their first bytes, and then their second bytes, which are more alike."""
    return base64.b64encode(zlib.compress(raw[1::2] + raw[0::2], 6)).decode("ascii")


def _unpack_embeddings(packed: Section) -> PackedEmbeddings:
    texts, length, vectors = packed["texts"], packed.get("length"), packed.get("vectors")
    are_texts = isinstance(vectors, str) and all(isinstance(text, str) for text in texts)
    if not isinstance(length, int) or length < 1 or not are_texts:
        raise PlansError(
            f"duplus.embeddings are packed, but the length is {length!r}, or the vectors or one of the texts are no "
            "text. Plan the dataset again."
        )
    try:
        block = _decompress(str(vectors), len(texts) * length * _BYTES_A_NUMBER)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise PlansError(
            f"duplus.embeddings.vectors are not {length} numbers for each of {len(texts)} texts ({error}). Plan the "
            "dataset again."
        ) from error
    return PackedEmbeddings(texts, length, block)


def _decompress(text: str, size: int) -> bytearray:
    """Decompress a text to a known number of bytes, part by part: each worker would keep the space of larger parts."""
    if size > len(text) * _MOST_EXPANSION:
        raise ValueError(f"too few for {size} bytes")
    block, filled, decompressor = bytearray(size), 0, zlib.decompressobj()
    for start in range(0, len(text), _PART):
        part = decompressor.decompress(base64.b64decode(text[start : start + _PART], validate=True))
        if filled + len(part) > size:
            raise ValueError(f"more than {size} bytes")
        block[filled : filled + len(part)] = part
        filled += len(part)
    if filled != size or not decompressor.eof:
        raise ValueError(f"{filled} bytes, expected {size}")
    return block
