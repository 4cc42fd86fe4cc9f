"""Embeds texts: from a store where it holds them, otherwise with the text encoder; and fills stores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry.encoder import TextEncoder
from duplus_nnunet.prompt_registry.identity import DEFAULT_ENCODER, EncoderIdentity, is_default
from duplus_nnunet.prompt_registry.store import (
    Store,
    Vectors,
    all_stores,
    key_of,
    normalise_rows,
    read_store,
    round_vectors,
    store_name,
    write_store,
)

_BATCH = 256


def embed(
    texts: Sequence[str],
    encoder: str | Path | None = None,
    pooling: str | None = None,
    expected: EncoderIdentity | None = None,
) -> tuple[Vectors, EncoderIdentity]:
    """Embed texts.

    Args:
        texts: N texts, none empty.
        encoder: Hub name or folder; None means the expected encoder, or else the default.
        pooling: `mean`, `cls` or `eos`; None means the expected one, or else the encoder's own.
        expected: The encoder of a model's other embeddings; any other is refused.

    Returns:
        Vectors (N, E), float32 of length 1, rounded as in stores; and the identity of the encoder.

    Raises:
        EncoderError: The encoder is missing, damaged, or not the expected one, or a text is empty.
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
        EncoderError: A store has that name, but its embeddings come from other weights than expected.
    """
    full_name = DEFAULT_ENCODER.name if is_default(name) else name
    default_pooling = DEFAULT_ENCODER.pooling if is_default(name) else None
    pooling = pooling or default_pooling
    stores = [
        store
        for store in all_stores()
        if store.identity.name == full_name and pooling in (None, store.identity.pooling)
    ]
    if expected is not None:
        same = [store for store in stores if store.identity.sha256 == expected.sha256]
        if stores and not same and is_default(name):
            expected.require_same(stores[0].identity, str(stores[0].path))
        stores = same
    return stores[0] if stores else None


def _ignore_progress(_: int) -> None:
    """Do not report progress."""


@dataclass(frozen=True)
class StoreUpdate:
    """Result of adding texts to a store.

    Attributes:
        path: File of the store.
        identity: The encoder.
        added: Number of texts that were added.
        known: Number of texts that the store already held.
    """

    path: Path
    identity: EncoderIdentity
    added: int
    known: int


def fill_store(
    texts: Sequence[str],
    model: TextEncoder,
    folder: Path,
    overwrite: bool = False,
    report: Callable[[int], object] = _ignore_progress,
) -> StoreUpdate:
    """Add texts to the store of an encoder in a folder, encoding only those that it lacks.

    Args:
        texts: Texts that the store is to hold.
        model: The encoder.
        folder: Folder of the store.
        overwrite: Embed all texts again, and delete stores of other weights under the encoder's name.
        report: Called with the number of texts that were just encoded.

    Raises:
        EncoderError: The folder has a store of other weights under the same name, and `overwrite` is off.
    """
    path = folder / store_name(model.identity)
    _remove_outdated_stores(folder, path, model.identity, overwrite)
    old = read_store(path) if path.is_file() and not overwrite else None
    vectors = {} if old is None else dict(zip(map(int, old.keys), old.vectors, strict=True))
    known = len(vectors)
    new = [text for text in dict.fromkeys(texts) if key_of(text) not in vectors]
    for start in range(0, len(new), _BATCH):
        batch = new[start : start + _BATCH]
        vectors.update(zip(map(key_of, batch), model.encode(batch), strict=True))
        report(len(batch))
    if new:
        write_store(path, model.identity, vectors)
    return StoreUpdate(path, model.identity, len(new), known)


def _require_texts(texts: Sequence[str]) -> None:
    empty = [index for index, text in enumerate(texts) if not text.strip()]
    if empty or not texts:
        where = f"text {empty[0] + 1} of {len(texts)} is empty" if empty else "there is no text"
        message = f"Nothing to embed: {where}. Give a prompt."
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
        message = f"{error} It is needed for texts without a stored embedding: {listed}."
        raise EncoderError(message) from error
    if expected is not None:
        expected.require_same(model.identity, f"Text encoder {model.identity.name!r}")
    if store is not None:
        store.identity.require_same(model.identity, f"Text encoder {model.identity.name!r} against {store.path}")
    return normalise_rows(round_vectors(model.encode(missing))), model.identity


def _remove_outdated_stores(folder: Path, path: Path, identity: EncoderIdentity, overwrite: bool) -> None:
    """Delete stores of the same encoder name and pooling but other weights, or refuse them."""
    stores = [read_store(other) for other in sorted(folder.glob("*.npz")) if other != path]
    for store in (store for store in stores if _is_outdated(store, identity)):
        if not overwrite:
            stored, current = store.identity.sha256[:12], identity.sha256[:12]
            message = (
                f"{store.path} holds embeddings of {identity.name!r} with other weights ({stored}... instead of "
                f"{current}...)."
            )
            raise EncoderError(f"{message} Add --overwrite to delete them and embed all texts again.")
        store.path.unlink()


def _is_outdated(store: Store, identity: EncoderIdentity) -> bool:
    same_name = (store.identity.name, store.identity.pooling) == (identity.name, identity.pooling)
    return same_name and store.identity.sha256 != identity.sha256
