"""Texts to embeddings by the cheapest way that gives the same numbers: a store where it has them, else the encoder.

In: texts and the encoder that is meant. Out: (N, E) float32 of length 1, and the identity of the encoder.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry.encoder import TextEncoder
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER, EncoderIdentity, is_default
from duplus_nnunet.prompt_registry.store import Store, Vectors, all_stores, normalise_rows, round_vectors


def embed(
    texts: Sequence[str],
    encoder: str | Path | None = None,
    pooling: str | None = None,
    expected: EncoderIdentity | None = None,
) -> tuple[Vectors, EncoderIdentity]:
    """Embed texts.

    Args:
        texts: N texts, none empty.
        encoder: Hub name or folder; None is the expected encoder or else the default.
        pooling: `mean`, `cls` or `eos`; None is the expected one or else the model's own.
        expected: The encoder that the other embeddings of a model come from; any other is refused.

    Returns:
        (N, E) float32 of length 1, rounded as stores round; and the encoder's identity.

    Raises:
        EncoderError: The encoder is missing, damaged, or another than expected; a text is empty.
    """
    _require_texts(texts)
    name = str(encoder) if encoder is not None else expected.name if expected else None
    pooling = pooling or (expected.pooling if expected else None)
    store = find_store(name, pooling, expected)
    missing = [text for text in dict.fromkeys(texts) if store is None or text not in store]
    if store is not None and not missing:
        return store.take(texts), store.identity
    fresh, identity = _encode(missing, name, pooling, store, expected)
    rows = {text: fresh[row] for row, text in enumerate(missing)}
    known = [text for text in dict.fromkeys(texts) if text not in rows]
    if store is not None and known:
        rows.update(zip(known, store.take(known), strict=True))
    return np.stack([rows[text] for text in texts]), identity


def find_store(name: str | None, pooling: str | None, expected: EncoderIdentity | None) -> Store | None:
    """Find the store of an encoder by name and pooling.

    Raises:
        EncoderError: There is one under that name, but by other weights than expected.
    """
    wanted = DEFAULT_ENCODER.name if is_default(name) else name
    default_pooling = DEFAULT_ENCODER.pooling if is_default(name) else None
    pooling = pooling or default_pooling
    found = [
        store for store in all_stores() if store.identity.name == wanted and pooling in (None, store.identity.pooling)
    ]
    if expected is not None:
        same = [store for store in found if store.identity.sha256 == expected.sha256]
        if found and not same and is_default(name):
            expected.require_same(found[0].identity, str(found[0].path))
        found = same
    return found[0] if found else None


def _require_texts(texts: Sequence[str]) -> None:
    empty = [index for index, text in enumerate(texts) if not text.strip()]
    if empty or not texts:
        where = f"text {empty[0] + 1} of {len(texts)} is empty" if empty else "there is no text"
        message = f"Nothing to embed: {where}. Write a prompt."
        raise EncoderError(message)


def _encode(
    missing: list[str], name: str | None, pooling: str | None, store: Store | None, expected: EncoderIdentity | None
) -> tuple[Vectors, EncoderIdentity]:
    try:
        model = TextEncoder(name, pooling or (store.identity.pooling if store else None))
    except EncoderError as error:
        listed = ", ".join(repr(text) for text in missing[:5]) + (
            f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        )
        message = f"{error} It is needed for texts that no store holds: {listed}."
        raise EncoderError(message) from error
    if expected is not None:
        expected.require_same(model.identity, f"Text encoder {model.identity.name!r}")
    if store is not None:
        store.identity.require_same(model.identity, f"Text encoder {model.identity.name!r} against {store.path}")
    return normalise_rows(round_vectors(model.encode(missing))), model.identity
