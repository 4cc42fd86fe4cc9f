"""Writes files atomically, and reads JSON files back into dataclasses."""

import errno
import glob
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
from pydantic import TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.text_files import load_json

Form = TypeVar("Form")

# Numbers of the system's errors for a full disk and for a used-up quota.
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
# Part of the names of temporary folders, after the name of the file.
_WRITING = ".writing-"
# Bytes that are written beside a new file to find out whether the disk is full.
_PROBE = 1 << 13


def list_written(folder: Path) -> list[Path]:
    """List the files below a folder, without those that another thread is writing and may remove at any time."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _WRITING not in name]
        found += [Path(parent, name) for name in names if _WRITING not in name]
    return found


@contextmanager
def open_new_file(file: Path) -> Iterator[Path]:
    """Yield a temporary path for writing a file; on success, the result is moved to its final path.

    The temporary path has the same file name, in a temporary folder of this process beside the final one. Additional
    files that a writer puts there, such as the spacing file of nnU-Net's TIFF writer, are moved too, the file itself
    last. On an error all of them are discarded, and an existing file is kept. Two processes that write the same file at
    the same time do not disturb each other: the file is that of the one which finishes last.

    Whether the disk is full is tested before the file is moved, since some writers, such as ITK's of NIfTI, cut a file
    off on a full disk without an error, and others raise an error of their own.

    Args:
        file: Final path; its folder is created if needed.

    Raises:
        DataError: The folder is not writable, or the disk is full.
    """
    workplace = _make_workplace(file)
    try:
        yield workplace / file.name
        _require_space(workplace)
        for written in sorted(workplace.iterdir(), key=lambda path: path.name == file.name):
            written.replace(file.with_name(written.name))
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise _to_data_error(file, error) from error
    except RuntimeError:  # of a compiled library, which does not name the reason
        full = _find_full_disk(workplace)
        if full is None:
            raise
        raise _to_data_error(file, full) from full
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _make_workplace(file: Path) -> Path:
    """Create the temporary folder beside a file, and remove those that killed processes of this machine left."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for remains in file.parent.glob(f"{glob.escape(file.name)}{_WRITING}*"):
            if not _is_in_use(remains):
                shutil.rmtree(remains, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=file.parent, prefix=f"{file.name}{_WRITING}{platform.node()}-{os.getpid()}-"))
    except OSError as error:
        if error.errno in FULL_DISK:
            raise _to_data_error(file, error) from error
        raise DataError(f"{file} cannot be written: {error.strerror or error}. Choose a writable folder.") from error


def _is_in_use(workplace: Path) -> bool:
    """Report whether the process that writes there may still run; that of another machine is assumed to."""
    machine, _, rest = workplace.name.partition(_WRITING)[2].rpartition("-")[0].rpartition("-")
    return machine != platform.node() or not rest.isdecimal() or psutil.pid_exists(int(rest))


def _to_data_error(file: Path, error: OSError) -> DataError:
    if _WRITING in file.parent.name:  # the file is rewritten before it is moved
        file = file.parent.with_name(file.name)
    return DataError(f"{file} cannot be written: {describe_full_disk(file.parent, error)}")


def _require_space(workplace: Path) -> None:
    """Write a little, and delete it.

    Raises:
        OSError: The disk is full, or the quota used up.
    """
    probe = workplace / ".space"
    try:
        probe.write_bytes(bytes(_PROBE))
    finally:
        probe.unlink(missing_ok=True)


def _find_full_disk(workplace: Path) -> OSError | None:
    try:
        _require_space(workplace)
    except OSError as error:
        return error if error.errno in FULL_DISK else None
    return None


def is_full_disk(error: BaseException | None) -> bool:
    """Report whether an error, or what caused it, is that of a full disk or of a used-up quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return True
        error = error.__cause__
    return False


def describe_full_disk(folder: Path, error: OSError) -> str:
    """Describe that no space is left, in one sentence on the folder and one on what to do."""
    return f"{error.strerror or error} in {folder}. Free some space, or choose a folder on another disk."


def require_writable(folder: Path, advice: str = "Choose another folder.") -> None:
    """Check that files can be written to a folder, before anything long begins; nothing is left there.

    Args:
        folder: The folder. If it does not exist, the nearest folder above it that does is checked.
        advice: What to do if it cannot be written to, a sentence.

    Raises:
        DataError: The folder, or the nearest path above it that exists, is a file or may not be written to.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise DataError(f"{folder} cannot be written to: {existing}: {error.strerror or error}. {advice}") from error


def require_writable_file(file: Path, advice: str) -> None:
    """Check that a file can be written, as `require_writable` does for its folder.

    Raises:
        DataError: It is a folder, or nothing can be written to its folder.
    """
    if file.is_dir():
        raise DataError(f"{file} cannot be written: it is a folder. {advice}")
    require_writable(file.parent, advice)


def write_text(file: Path, content: str) -> None:
    """Write a text file atomically, in UTF-8 and with the same line endings on every system."""
    with open_new_file(file) as new:
        new.write_text(content, encoding="utf-8", newline="\n")


def read_form(file: Path, form: type[Form], version: int, advice: str) -> Form:
    """Read a JSON file and validate its content against a dataclass.

    Args:
        file: An existing file.
        form: Dataclass of the content, without the key `version`.
        version: Version of the format that this package writes.
        advice: Sentence of the error message on what to do if the file cannot be read.

    Raises:
        DataError: The file cannot be read, has another version, or does not match the dataclass.
    """
    try:
        content = dict(load_json(file))
        found_version = content.pop("version")
        if found_version == version:
            return TypeAdapter(form).validate_python(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}: {error}). {advice}") from error
    raise DataError(f"{file} has format version {found_version!r}, expected {version}. {advice}")
