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

_PORTION = 256


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


def _say_nothing(_: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Filling:
    """What filling a store did: its file, its encoder, and how many texts were new and known."""

    path: Path
    identity: EncoderIdentity
    added: int
    known: int


def fill_store(
    texts: Sequence[str],
    model: TextEncoder,
    folder: Path,
    overwrite: bool = False,
    report: Callable[[int], object] = _say_nothing,
) -> Filling:
    """Add texts to the store of an encoder in a folder.

    Args:
        texts: What is to be in the store afterwards.
        model: The encoder.
        folder: Where stores are.
        overwrite: Discard what other weights left under the encoder's name, and embed everything anew.
        report: Called with the number of texts just done.

    Raises:
        EncoderError: The folder has embeddings by other weights under the same name, and `overwrite` is off.
    """
    path = folder / store_name(model.identity)
    _settle_rivals(folder, path, model.identity, overwrite)
    old = read_store(path) if path.is_file() and not overwrite else None
    vectors = {} if old is None else dict(zip(map(int, old.keys), old.vectors, strict=True))
    known = len(vectors)
    new = [text for text in dict.fromkeys(texts) if key_of(text) not in vectors]
    for start in range(0, len(new), _PORTION):
        portion = new[start : start + _PORTION]
        vectors.update(zip(map(key_of, portion), model.encode(portion), strict=True))
        report(len(portion))
    if new:
        write_store(path, model.identity, vectors)
    return Filling(path, model.identity, len(new), known)


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


def _settle_rivals(folder: Path, path: Path, identity: EncoderIdentity, overwrite: bool) -> None:
    rivals = [read_store(other) for other in sorted(folder.glob("*.npz")) if other != path]
    for store in (rival for rival in rivals if _is_rival(rival, identity)):
        if not overwrite:
            there, here = store.identity.sha256[:12], identity.sha256[:12]
            message = (
                f"{store.path} holds embeddings of {identity.name!r} by other weights ({there}..., at hand {here}...)."
            )
            raise EncoderError(f"{message} Add --overwrite to discard them and embed everything anew.")
        store.path.unlink()


def _is_rival(store: Store, identity: EncoderIdentity) -> bool:
    same_question = (store.identity.name, store.identity.pooling) == (identity.name, identity.pooling)
    return same_question and store.identity.sha256 != identity.sha256
