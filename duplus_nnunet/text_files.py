"""Reads text and JSON files that people or other programs wrote: regular files of a bounded size and depth.

A named pipe, a device or a folder in place of a file is refused before it is opened, as reading it might never end.
"""

import errno
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError

# Plans and clinical tables have up to tens of MiB.
MOST_BYTES = 256 << 20
_MIB = 1 << 20
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a named pipe"),
    (stat.S_ISSOCK, "it is a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "it is a device"),
)


def read_text(file: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    r"""Read a text file, without its byte order mark and with "\n" at the end of each line.

    Args:
        file: UTF-8 or UTF-16 text, with or without a byte order mark (UTF-16 needs one).
        most: Maximum size in bytes.

    Raises:
        OSError: It does not exist, is not a regular file, or cannot be read.
        DataError: It is larger than `most`, or is neither UTF-8 nor UTF-16.
    """
    content = _read_bytes(Path(file), most)
    encoding = "utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 text ({error.reason} at byte {error.start})"
        raise DataError(f"{file} cannot be read: {reason}. Save it as UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_encoded_text(file: str | os.PathLike[str], most: int = MOST_BYTES) -> tuple[str, str]:
    """Read a text file as `read_text` does, or as Windows-1252 if it is not UTF-8; returns the text and its encoding.

    Raises:
        OSError: As in `read_text`.
        DataError: It is larger than `most`, or is not text in any of these encodings.
    """
    content = _read_bytes(Path(file), most)
    if content.startswith(_UTF16_MARKS):
        return read_text(file, most), "UTF-16"
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            return read_text(file, most), "UTF-8"
        return text.replace("\r\n", "\n").replace("\r", "\n"), "Windows-1252"
    return read_text(file, most), "UTF-8"


def _read_bytes(file: Path, most: int) -> bytes:
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode):
        what = next((text for matches, text in _KINDS if matches(mode)), "it is not a regular file")
        raise OSError(errno.EINVAL, f"{what}, expected a regular file", str(file))
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        size = max(len(content), file.stat().st_size) / _MIB
        raise DataError(
            f"{file} cannot be read: it has {size:.1f} MiB, expected at most {most / _MIB:g} MiB for such a file. "
            "Check that it is the file you meant."
        )
    return content


def load_json(file: str | os.PathLike[str], most: int = MOST_BYTES) -> Any:
    """Read a JSON file.

    Args:
        file: As in `read_text`.
        most: Maximum size in bytes.

    Raises:
        OSError: It does not exist, is not a regular file, or cannot be read.
        DataError: It is too large, is not text or not valid JSON, is nested too deeply, has half of a surrogate pair in
            a text, or names a key twice in one object.
    """
    return parse_json(read_text(file, most), str(file))


def parse_json(text: str, file: str) -> Any:
    """Parse the text of a JSON file; `file` names it in messages.

    Raises:
        DataError: As in `load_json`.
    """

    def build(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise DataError(f"{file}: the key {key!r} occurs twice in one object. Keep one of the two.")
            content[key] = value
        return content

    try:
        content = json.loads(text, object_pairs_hook=build)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except DataError:
        raise
    except RecursionError as error:
        raise DataError(f"{file} cannot be read: its JSON is nested too deeply. Correct it.") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{file} is not valid JSON: a text has half of a surrogate pair. Correct it.") from error
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON: {error}. Correct it.") from error
    return content
