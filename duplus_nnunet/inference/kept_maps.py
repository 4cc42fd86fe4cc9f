"""Keeps every call of the network on one image, compressed, in memory and beyond a limit in a temporary file.

The file has no name once it is open (on Windows: is deleted when it is closed), so that nothing of it is left behind,
even if the process is killed.
"""

import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

import blosc2  # type: ignore[import-untyped]
import numpy as np
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.window_maps import CallKey, CallMaps, KeptMap
from duplus_nnunet.outputs.answer import Box

# Maps are kept in the type in which the network computed them. NumPy has no bfloat16, whose bits are kept instead.
_BITS = {torch.bfloat16: torch.int16}
# Fast at compressing, since an image is opened once and asked about many times.
_COMPRESSION = {"codec": blosc2.Codec.LZ4, "clevel": 1, "filters": [blosc2.Filter.BITSHUFFLE]}


@dataclass(frozen=True)
class _Stored:
    """A compressed map, in memory or in the file.

    Attributes:
        content: Compressed; None if it is in the file.
        start: Where it begins in the file.
        size: Compressed bytes.
        shape: Of the map, (1, F, D, H, W).
        dtype: Of the map.
        pooled: Pooled bottleneck, (1, C).
    """

    content: bytes | None
    start: int
    size: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    pooled: torch.Tensor


@dataclass
class KeptMaps(CallMaps):
    """Keeps every call whole.

    Attributes:
        uses_file: Whether what exceeds the budget is kept in a temporary file; if not, it is not kept.
        progress: Called before each window with how many windows were predicted in this walk, and with their number.
        in_memory: Compressed bytes in memory.
        in_file: Compressed bytes in the file.
        uncompressed: Bytes of all kept maps before compression.
    """

    uses_file: bool = True
    progress: Callable[[int, int], object] | None = None
    in_memory: int = field(default=0, init=False)
    in_file: int = field(default=0, init=False)
    uncompressed: int = field(default=0, init=False)
    _kept: dict[CallKey, _Stored] = field(default_factory=dict, init=False)
    _file: IO[bytes] | None = field(default=None, init=False)
    _walked: int = field(default=0, init=False)
    _is_full: bool = field(default=False, init=False)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept in memory."""
        return self.in_memory

    def begin_window(self, window: int, windows: int) -> None:
        """Note the next window, and report progress."""
        super().begin_window(window, windows)
        self._walked = self._walked % windows
        if self.progress is not None:
            self.progress(self._walked, windows)
        self._walked += 1

    def keep(self, adapter: str, maps: torch.Tensor, pooled: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep the current call. If the disk is full, it is made again when it is needed; a warning says so."""
        key = self.key_of(adapter)
        if key in self._kept:
            return
        own = maps.detach().to("cpu").contiguous()
        values = own.view(_BITS.get(own.dtype, own.dtype)).numpy()
        content = _compress(values)
        start = -1
        if self.in_memory + len(content) > self.budget:
            start = self._write(content) if self.uses_file else -1
            if start < 0:
                return
        stored = content if start < 0 else None
        self._kept[key] = _Stored(
            stored, start, len(content), tuple(own.shape), own.dtype, pooled.detach().to("cpu", copy=True)
        )
        self.uncompressed += values.nbytes
        if stored is not None:
            self.in_memory += len(content)

    def find(self, adapter: str, box: Box) -> KeptMap | None:
        """Return the current call; None if it was not kept."""
        stored = self._kept.get(self.key_of(adapter))
        if stored is None:
            return None
        content = self._read(stored) if stored.content is None else stored.content
        flat = torch.empty(math.prod(stored.shape), dtype=_BITS.get(stored.dtype, stored.dtype))
        blosc2.decompress2(content, dst=flat.numpy(), nthreads=torch.get_num_threads())
        maps = flat.view(stored.dtype).reshape(stored.shape)
        d, h, w = (slice(0, size) for size in stored.shape[2:])
        return KeptMap((d, h, w), maps, stored.pooled)

    def close(self) -> None:
        """Forget everything, and delete the file."""
        self._kept.clear()
        self.in_memory = self.in_file = self.uncompressed = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, content: bytes) -> int:
        """Append to the file, and return where it begins; -1 if the disk is full."""
        if self._is_full:
            return -1
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="duplus-")  # noqa: SIM115 - closed in `close`
            self._file.seek(self.in_file)
            self._file.write(content)
            self._file.flush()
        except OSError as error:
            self._is_full = True
            sys.stderr.write(
                f"warning: what was computed of the image cannot be kept in {tempfile.gettempdir()} "
                f"({error.strerror or error}); answers stay the same but take longer. Make room there, name another "
                "folder by TMPDIR, or allow more memory.\n"
            )
            return -1
        start = self.in_file
        self.in_file += len(content)
        return start

    def _read(self, stored: _Stored) -> bytes:
        """Read from the file.

        Raises:
            DataError: It cannot be read.
        """
        try:
            if self._file is None:
                raise OSError("it was closed")
            self._file.seek(stored.start)
            content = self._file.read(stored.size)
        except OSError as error:
            raise DataError(f"What was computed of the image cannot be read: {error}. Open it again.") from error
        if len(content) < stored.size:
            raise DataError(
                f"Of what was computed of the image, {len(content)} of {stored.size} bytes are left in the temporary "
                "file. Open it again."
            )
        return content


def _compress(values: "np.ndarray[Any, Any]") -> bytes:
    """Compress an array."""
    content: bytes = blosc2.compress2(
        np.ascontiguousarray(values), typesize=values.itemsize, nthreads=torch.get_num_threads(), **_COMPRESSION
    )
    return content
