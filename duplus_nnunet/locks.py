"""Keeps two processes from writing into one folder at the same time."""

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from duplus_nnunet.errors import DataError
from duplus_nnunet.remote_files import hide_credentials

# Beside it, FILE_NAME + ".json" describes the process that holds the lock.
FILE_NAME = ".duplus_lock"


@contextmanager
def hold(folder: Path, purpose: str, advice: str, name: str = "") -> Iterator[None]:
    """Hold the lock on a folder, which ends with the process that holds it, even if it is killed.

    Args:
        folder: The folder; it is created if needed, and removed again if nothing is written into it.
        purpose: What is being done, such as "predicting into"; it stands in the message of the next one.
        advice: What to do if another process holds the lock, a sentence.
        name: What is locked in the folder, such as one part of a prediction; locks of different names are independent.

    Raises:
        DataError: Another process holds the lock; the message names it. Or the folder cannot be written to.
    """
    file = folder / (FILE_NAME + (f"_{name}" if name else ""))
    lock: FileLock | None = None
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(file)
    except Timeout as error:
        raise DataError(f"{_describe_holder(file, folder)} {advice}") from error
    except NotImplementedError:
        sys.stderr.write(f"warning: the file system of {folder} has no locks; start no second process in it.\n")
    except OSError as error:
        raise DataError(f"{folder} cannot be locked: {error.strerror or error}. Choose a writable folder.") from error
    note = _note_of(file)
    try:
        with suppress(OSError):  # it is for messages alone, and the disk may be full
            note.write_text(json.dumps(_describe_self(purpose)), encoding="utf-8")
        yield
    finally:
        note.unlink(missing_ok=True)
        with suppress(OSError):  # on Windows, an open file cannot be deleted
            file.unlink(missing_ok=True)
        if lock is not None:
            lock.release()
        with suppress(OSError):  # what was written into them stays
            for path in new:
                path.rmdir()


def _acquire(file: Path) -> FileLock:
    """Lock a file, and make sure that it was not deleted by its last holder between being opened and being locked.

    Raises:
        Timeout: Another process holds the lock.
    """
    while True:
        file.touch()
        before = _read_inode(file)
        lock = FileLock(file, timeout=0, thread_local=False)
        lock.acquire()
        if before is not None and _read_inode(file) == before:
            return lock
        lock.release()


def _read_inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None


def _note_of(file: Path) -> Path:
    return file.with_name(file.name + ".json")


def _describe_self(purpose: str) -> dict[str, object]:
    command = " ".join((Path(sys.argv[0]).name, *sys.argv[1:]))
    since = datetime.now(UTC).isoformat(timespec="seconds")
    command = hide_credentials(command)[:300]
    return {"purpose": purpose, "pid": os.getpid(), "host": platform.node(), "since": since, "command": command}


def _describe_holder(file: Path, folder: Path) -> str:
    try:
        holder = json.loads(_note_of(file).read_text(encoding="utf-8"))
        return (
            f"Another process is {holder['purpose']} {folder}: process {holder['pid']} on {holder['host']}, since "
            f"{holder['since']} ({holder['command']})."
        )
    except (OSError, ValueError, KeyError, TypeError):  # it took the lock a moment ago, or has just ended
        return f"Another process is using {folder}."
