"""Files that are never there in part: in comes where one shall be, out comes where to write it until it is whole."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError

Form = TypeVar("Form")


@contextmanager
def open_new_file(file: Path) -> Iterator[Path]:
    """Give a path of the same file name, in a folder of its own beside it; what was written moves when all went well.

    A writer may leave more files there, as nnU-Net's for TIFF does with the spacing: they move too, the file itself
    last. On an error all of them are dropped, and a file that was there before stays.

    Args:
        file: Where it shall be; the folder is made if there is none.

    Raises:
        DataError: Nothing can be written there.
    """
    workplace = file.with_name(file.name + ".writing")
    shutil.rmtree(workplace, ignore_errors=True)  # of a run that was killed
    try:
        workplace.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{file} cannot be written ({error.strerror}). Choose a folder that can be.") from error
    try:
        yield workplace / file.name
        for written in sorted(workplace.iterdir(), key=lambda path: path.name == file.name):
            written.replace(file.with_name(written.name))
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


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
    """Write a text file, in UTF-8 and with the same line ends on every system."""
    with open_new_file(file) as new:
        new.write_text(content, encoding="utf-8", newline="\n")


def read_form(file: Path, form: type[Form], version: int, advice: str) -> Form:
    """Read a JSON file back, checked against a dataclass of its parts beside `version`.

    Args:
        file: It is there.
        form: A dataclass.
        version: The one that this package writes.
        advice: What to do if it cannot be read, a sentence.

    Raises:
        DataError: It cannot be read, is of another version, or not of the form.
    """
    try:
        content = dict(json.loads(file.read_text(encoding="utf-8")))
        found = content.pop("version")
        if found == version:
            return TypeAdapter(form).validate_python(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}: {error}). {advice}") from error
    raise DataError(f"{file} has version {found!r} of the form, expected {version}. {advice}")
