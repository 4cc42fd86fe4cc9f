"""Reads the option `--context`: the name of one context, or a file with the context of each case.

The file is a table with the columns case and context (.csv), or a mapping of cases to contexts (.json).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from duplus_nnunet.errors import DataError, PromptError, describe_unknown
from duplus_nnunet.table_files import read_csv, read_json

COLUMNS = ("case", "context")
_ENDINGS = (".csv", ".json")
_SHOWN = 10
_ADVICE = "Give a context's name, or a table of contexts by case (.csv or .json)."

# Position in the file, case, and context as given by the user.
_Entry = tuple[str, str, str]


@dataclass(frozen=True)
class ContextChoice:
    """The context of each case.

    Attributes:
        default: Context of all cases; None if each case has one of its own.
        by_case: Contexts by case; empty if all cases have the default.
        origin: File that the contexts were read from; empty if a name was given.
    """

    default: str | None
    by_case: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    def of(self, case: str) -> str:
        """Return the context of a case.

        Raises:
            DataError: The table has no context for the case.
        """
        context = self.by_case.get(case, self.default)
        if context is None:
            raise DataError(f"{self.origin}: {describe_unknown('case', case, self.by_case)} Add a line for it.")
        return context

    def check_cases(self, cases: Iterable[str]) -> str | None:
        """Compare the table with the cases to predict.

        Returns:
            A warning if the table has other cases too; None otherwise.

        Raises:
            DataError: The table lacks some of the cases.
        """
        if self.default is not None:
            return None
        requested = set(cases)
        missing, extra = sorted(requested - set(self.by_case)), sorted(set(self.by_case) - requested)
        if missing:
            raise DataError(
                f"{self.origin} has no context for {len(missing)} of the {len(requested)} cases to predict: "
                f"{', '.join(missing)}. Add a line for each; cases are named without channel number and file ending."
            )
        if not extra:
            return None
        more = f" and {len(extra) - _SHOWN} more" if len(extra) > _SHOWN else ""
        listed = ", ".join(extra[:_SHOWN]) + more
        return f"{self.origin} names {len(extra)} case(s) without images: {listed}."


def read_contexts(text: str, known: Sequence[str]) -> ContextChoice:
    """Read the value of `--context`.

    Args:
        text: Name of a context, in any case, or a file.
        known: Names of the model's contexts.

    Raises:
        PromptError: A context is unknown.
        DataError: The file is missing, empty or not of the expected form, or names a case twice.
    """
    names = {name.casefold(): name for name in known}
    if text.strip().casefold() in names:
        return ContextChoice(names[text.strip().casefold()])
    file = Path(text)
    if not _is_file_name(file, text):
        raise PromptError(
            f"{describe_unknown('context', text, known)} A table of contexts by case must end in .csv or .json."
        )
    if file.suffix.lower() not in _ENDINGS:
        raise DataError(f"{file} is not a table of contexts: give a file that ends in .csv or .json.")
    by_case: dict[str, str] = {}
    for where, case, context in _read_csv(file) if file.suffix.lower() == ".csv" else _read_json(file):
        if not case or not context:
            raise DataError(f"{file}, {where}: the {'context' if case else 'case'} is empty. Write case and context.")
        if case in by_case:
            raise DataError(f"{file}, {where}: the case {case!r} occurs twice. Keep one of the two.")
        if context.casefold() not in names:
            raise PromptError(f"{file}, {where}: {describe_unknown('context', context, known)}")
        by_case[case] = names[context.casefold()]
    if not by_case:
        raise DataError(f"{file} names no case. Write a case and its context a line, under the header `case,context`.")
    return ContextChoice(None, by_case, str(file))


def _is_file_name(file: Path, text: str) -> bool:
    return file.suffix.lower() in _ENDINGS or file.is_file() or "/" in text or "\\" in text


def _read_csv(file: Path) -> Iterator[_Entry]:
    table = read_csv(file, _ADVICE, COLUMNS)
    header = [name.casefold() for name in table.columns]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        listed = ", ".join(map(repr, header)) or "nothing"
        raise DataError(f"{file}, line 1: there is no column {missing[0]!r}; found {listed}. Write `case,context`.")
    case, context = (header.index(column) for column in COLUMNS)
    for row in table.rows:
        cells = (*row.cells, *[""] * len(header))
        yield f"line {row.line}", cells[case], cells[context]


def _read_json(file: Path) -> Iterator[_Entry]:
    content = read_json(file, _ADVICE)
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__}; expected a mapping of cases to contexts.")
    for case, context in content.items():
        if not isinstance(context, str):
            raise DataError(f"{file}, case {case!r}: the context is {context!r}. Write the name of one context.")
        yield f"case {case!r}", case.strip(), context.strip()
