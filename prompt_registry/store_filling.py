"""Filling a store: the texts it lacks are encoded in small portions and added to what it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.prompt_registry.encoder import TextEncoder
from duplus_nnunet.prompt_registry.identity import EncoderIdentity
from duplus_nnunet.prompt_registry.store import Store, key_of, read_store, store_name, write_store

_PORTION = 256


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
