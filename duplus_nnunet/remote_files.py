"""Files given as URLs, on object storage or network disks: listed, fetched, written and named without credentials.

fsspec knows the kinds of storage; each needs a package of its own (s3fs for s3://, gcsfs for gs://), which is imported
when a URL asks for it.
"""

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import uuid4

from duplus_nnunet.errors import DataError, DuplusError, HostError, describe_unknown

# A scheme of one letter would be a drive of Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::[A-Za-z][A-Za-z0-9+.-]+)*://")
_URL_IN_TEXT = re.compile(rf"({_URL.pattern})([^\s'\"<>]*)")
# Storage that shows an object only when it is whole, and where renaming copies it.
_WHOLE_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "memory"})
_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileState:
    """The state of a file at a URL.

    Attributes:
        size: In bytes.
        mark: Time of the last modification, ISO 8601 in UTC; where the storage has none, its own mark of the content.
    """

    size: int
    mark: str


def is_url(text: object) -> bool:
    """Whether a text is a URL such as `s3://bucket/folder`, and not a path.

    Example:
        >>> is_url("s3://bucket/images"), is_url("images/ct"), is_url("C:/images")
        (True, False, False)
    """
    return isinstance(text, str) and _URL.match(text) is not None


def hide_credentials(text: str) -> str:
    """Take user names, passwords, signatures and other parameters out of the URLs of a text.

    Example:
        >>> hide_credentials("get sftp://me:secret@host/a.nii.gz and https://host/b.nii?sig=ab")
        'get sftp://host/a.nii.gz and https://host/b.nii'
    """
    return _URL_IN_TEXT.sub(lambda found: found[1] + _strip(found[2]), text)


def _strip(rest: str) -> str:
    """Strip what follows `://`; a password may have a slash or `?` in it, hence up to the last `@`."""
    rest = rest.rpartition("@")[2]
    return re.split(r"[?#]", rest, maxsplit=1)[0]


def read_name(url: str) -> str:
    """Return the name of the file that a URL is of."""
    return hide_credentials(url).rstrip("/").rpartition("/")[2]


def join_url(folder: str, name: str) -> str:
    """Return the URL of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def list_names(url: str) -> list[str]:
    """List the names of the files of a folder, without those of folders in it.

    Raises:
        DataError: There is no such folder, or it cannot be read.
        HostError: The package that its kind of storage needs is not installed.
    """
    with _explain(url, "listed"):
        system, path = _open(url)
        return sorted(
            str(entry["name"]).rstrip("/").rpartition("/")[2]
            for entry in system.ls(path, detail=True)
            if entry["type"] == "file"
        )


def read_state(url: str) -> FileState:
    """Describe a file without reading it.

    Raises:
        DataError: There is no such file, or it cannot be read.
        HostError: As for `list_names`.
    """
    with _explain(url, "read"):
        system, path = _open(url)
        size = int(system.info(path)["size"])
        try:
            when = system.modified(path)
        except (NotImplementedError, AttributeError, KeyError):
            return FileState(size, str(system.checksum(path)))
        return FileState(size, (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC).isoformat())


def fetch(url: str, folder: Path) -> Path:
    """Copy a file into a folder of this machine, under its own name.

    Raises:
        DataError: There is no such file, it cannot be read, or the disk is full.
        HostError: As for `list_names`.
    """
    file = folder / read_name(url)
    with _explain(url, "read"):
        system, path = _open(url)
        system.get_file(path, str(file))
    return file


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of files that are written by this package.

    Attributes:
        url: URL of the folder.
    """

    url: str

    @property
    def shown(self) -> str:
        """The URL as it may be shown and recorded."""
        return hide_credentials(self.url)

    def list_sizes(self) -> dict[str, int]:
        """Return the size in bytes of each file by its path in the folder; empty if there is no folder.

        Raises:
            DataError: It cannot be listed.
            HostError: As for `list_names`.
        """
        with _explain(self.url, "listed"):
            system, path = _open(self.url)
            try:
                found = system.find(path, detail=True)
            except FileNotFoundError:
                return {}
            start = len(path.rstrip("/")) + 1
            return {str(name)[start:]: int(entry["size"]) for name, entry in found.items()}

    def read(self, name: str) -> bytes:
        """Read a small file.

        Raises:
            DataError: There is no such file, or it cannot be read.
        """
        with _explain(join_url(self.url, name), "read"):
            system, path = _open(join_url(self.url, name))
            return bytes(system.cat_file(path))

    def hash(self, name: str) -> str:
        """Compute the SHA-256 of a file, as hexadecimal text.

        Raises:
            DataError: There is no such file, or it cannot be read.
        """
        digest = hashlib.sha256()
        with _explain(join_url(self.url, name), "read"):
            system, path = _open(join_url(self.url, name))
            with system.open(path, "rb") as content:
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()

    def put(self, file: Path, name: str) -> None:
        """Write a file, whole or not at all where the storage can do that.

        Object storage shows an object when it is whole. Elsewhere the file is written under another name and moved.

        Args:
            file: A file of this machine.
            name: Path in the folder, with `/`.

        Raises:
            DataError: It cannot be written.
        """
        url = join_url(self.url, name)
        with _explain(url, "written"):
            system, path = _open(url)
            kinds = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
            if kinds & _WHOLE_OBJECTS:
                system.put_file(str(file), path)
                return
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            aside = f"{path}.writing-{uuid4().hex[:8]}"
            try:
                system.put_file(str(file), aside)
                system.mv(aside, path)
            except BaseException:
                if system.exists(aside):
                    system.rm_file(aside)
                raise


def require_storage(url: str) -> None:
    """Check that files of a URL's kind can be opened, before anything long begins.

    Raises:
        DataError: The kind of storage is not known.
        HostError: The package that it needs is not installed.
    """
    with _explain(url, "opened"):
        _open(url)


def _open(url: str) -> tuple[Any, str]:
    """Open the file system of a URL; nothing that others have written since is hidden by a list that it kept."""
    import fsspec
    from fsspec.registry import known_implementations

    kind = url.partition("://")[0].rpartition("::")[2].lower()
    if kind not in fsspec.available_protocols():
        raise DataError(f"{hide_credentials(url)}: {describe_unknown('kind of storage', kind, known_implementations)}")
    package = known_implementations.get(kind, {}).get("class", "fsspec").partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise HostError(f"{kind}:// needs the package {package}, which is not installed. Run: pip install {package}")
    system, path = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    return system, str(path)


@contextmanager
def _explain(url: str, what: str) -> Iterator[None]:
    """Raise errors of a storage, which has exceptions of its own, as one sentence without credentials."""
    try:
        yield
    except DuplusError:
        raise
    except ImportError as error:
        raise HostError(
            f"{hide_credentials(url)} cannot be {what}: {hide_credentials(str(error))}. Install what it names."
        ) from None
    except FileNotFoundError:
        raise DataError(f"{hide_credentials(url)} does not exist. Correct the URL.") from None
    except MemoryError:
        raise
    except OSError as error:
        reason = hide_credentials(error.strerror or str(error) or type(error).__name__)
        raise DataError(f"{hide_credentials(url)} cannot be {what}: {reason}.") from _strip_cause(error)
    except Exception as error:
        reason = hide_credentials(f"{type(error).__name__}: {error}")
        raise DataError(f"{hide_credentials(url)} cannot be {what}: {reason}. Check the credentials.") from None


def _strip_cause(error: OSError) -> OSError | None:
    """Keep the number of an error, by which a full disk is recognised, without its text."""
    return OSError(error.errno, os.strerror(error.errno)) if error.errno else None
