"""Reads the JSON files of other commands that a report shows, and refuses those of another form."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.table_files import read_json

Interval = tuple[float | None, float | None]


def _drop_open_ends(value: object) -> object:
    """Return None for an interval with an end that is not defined."""
    return None if isinstance(value, (list, tuple)) and None in value else value


class ResultForm(BaseModel):
    """A mapping in such a file; keys without a field are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class EstimateForm(ResultForm):
    """A value with its interval; None: not defined."""

    value: float | None
    interval: Annotated[tuple[float, float] | None, BeforeValidator(_drop_open_ends)] = None

    @property
    def number(self) -> float:
        """The value; NaN if it is not defined."""
        return float("nan") if self.value is None else self.value


Form = TypeVar("Form", bound=ResultForm)


def read_result(file: Path, form: type[Form], command: str) -> Form:
    """Read a JSON file that another command wrote.

    Args:
        file: The file.
        form: Its form.
        command: The command that writes it, for messages.

    Raises:
        DataError: The file is missing or damaged, or has another form.
    """
    content = read_json(file, f"Give a file that `{command}` wrote.")
    try:
        return form.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its content"
        raise DataError(
            f"{file} is not a file of `{command}`: {where}: {first['msg']}. Write it again with that command."
        ) from error


def format_estimate(value: float | None, interval: tuple[float, float] | None, digits: int = 3) -> str | None:
    """Format a value and its interval; None if the value is not defined."""
    if value is None:
        return None
    ends = "" if interval is None else f" ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"
    return f"{value:.{digits}f}{ends}"


def join_some(names: Iterable[str], most: int = 5) -> str:
    """Join names, and count those beyond `most`."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
