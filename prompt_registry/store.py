"""Stores embeddings in one .npz file for each encoder and pooling, so that they can be read without an encoder."""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import EncoderError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.prompt_registry.identity import EncoderIdentity

FOLDER_VARIABLE = "DUPLUS_EMBEDDINGS"
SHIPPED_FOLDER = Path(__file__).parent / "embeddings"
# 64 bits of a text's checksum: among a million texts, two share a key with a probability below one in ten million.
_KEY_BYTES = 8

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Store:
    """Embeddings of many texts by one encoder.

    Attributes:
        identity: The encoder.
        keys: Keys of the texts (N,), see `key_of`.
        vectors: Embeddings (N, E), float16, each of length about 1.
        path: The file, for messages.
    """

    identity: EncoderIdentity
    keys: NDArray[np.uint64]
    vectors: NDArray[np.float16]
    path: Path

    @cached_property
    def _rows(self) -> dict[int, int]:
        return {int(key): row for row, key in enumerate(self.keys)}

    def __contains__(self, text: str) -> bool:
        """Whether a text has an embedding in the store."""
        return key_of(text) in self._rows

    def take(self, texts: Sequence[str]) -> Vectors:
        """Return the embeddings (N, E) of texts that are all in the store, float32 of length 1."""
        rows = [self._rows[key_of(text)] for text in texts]
        return normalise_rows(self.vectors[rows].reshape(len(rows), self.identity.dimension))


def key_of(text: str) -> int:
    """Compute the key of a text: the first 64 bits of its SHA-256 checksum."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:_KEY_BYTES], "big")


def round_vectors(vectors: NDArray[np.floating]) -> NDArray[np.float16]:
    """Round embeddings as stores do, so that a stored and a new embedding of a text are equal."""
    return vectors.astype(np.float16)


def normalise_rows(vectors: NDArray[np.float16]) -> Vectors:
    """Scale each row to length 1."""
    wide = vectors.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def write_store(path: Path, identity: EncoderIdentity, vectors_of: Mapping[int, NDArray[np.floating]]) -> None:
    """Write embeddings by key to a file, sorted so that the same texts give the same bytes.

    Args:
        path: The file; it is written atomically.
        identity: The encoder.
        vectors_of: By key (see `key_of`), a vector (E,) of length 1.
    """
    keys = sorted(vectors_of)
    vectors = round_vectors(np.stack([vectors_of[key] for key in keys]))
    with open_new_file(path) as new, new.open("wb") as file:
        np.savez_compressed(
            file,
            identity=np.array(json.dumps(identity.to_dict())),
            keys=np.array(keys, dtype=np.uint64),
            vectors=vectors,
        )


def read_store(path: Path) -> Store:
    """Read a store.

    Raises:
        EncoderError: The file is damaged or not a store.
    """
    return _read_store(path, path.stat().st_mtime_ns)


def store_name(identity: EncoderIdentity) -> str:
    """Return the file name of an encoder's store."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", identity.name).strip("-")[-60:]
    return f"{slug}.{identity.pooling}.{identity.sha256[:8]}.npz"


def user_folder() -> Path:
    """Return the folder of the user's stores: DUPLUS_EMBEDDINGS, else one in the user's cache."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(chosen) if chosen else Path(cache) / "duplus" / "embeddings"


def all_stores() -> Iterator[Store]:
    """Read all stores, the shipped ones first."""
    for folder in (SHIPPED_FOLDER, user_folder()):
        for path in sorted(folder.glob("*.npz")):
            yield read_store(path)


@lru_cache(maxsize=16)
def _read_store(path: Path, _changed: int) -> Store:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
            identity = EncoderIdentity.from_dict(json.loads(str(data["identity"])))
            keys, vectors = data["keys"], data["vectors"]
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        message = f"{path} is not a readable store of embeddings ({error})."
        raise EncoderError(f"{message} Delete it and run `duplus prompts embed` again.") from error
    if vectors.shape != (len(keys), identity.dimension):
        message = f"{path} has vectors of shape {vectors.shape}; expected {(len(keys), identity.dimension)}."
        raise EncoderError(f"{message} Delete it and run `duplus prompts embed` again.")
    return Store(identity, keys, vectors, path)
