"""Contexts a case: in comes what a user typed for `--context`, out comes which context each case has.

It is one context's name, or a file: a table `case,context` (.csv), or a mapping of cases to contexts (.json).
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

# Where it stands, the case, and its context as typed.
_Entry = tuple[str, str, str]


@dataclass(frozen=True)
class ContextChoice:
    """Which context each case has.

    Attributes:
        default: Context of every case; None if each case has one of its own.
        by_case: Contexts by case; empty if all have the default.
        origin: The file that they were read from; empty for a name.
    """

    default: str | None
    by_case: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    def of(self, case: str) -> str:
        """Return a case's context.

        Raises:
            DataError: The table has none for it.
        """
        found = self.by_case.get(case, self.default)
        if found is None:
            raise DataError(f"{self.origin}: {describe_unknown('case', case, self.by_case)} Add a line for it.")
        return found

    def check_cases(self, cases: Iterable[str]) -> str | None:
        """Compare the table with the cases that are to be predicted.

        Returns:
            A warning if it names cases that are not among them; None if there is nothing to say.

        Raises:
            DataError: It lacks some of them.
        """
        if self.default is not None:
            return None
        wanted = set(cases)
        missing, extra = sorted(wanted - set(self.by_case)), sorted(set(self.by_case) - wanted)
        if missing:
            raise DataError(
                f"{self.origin} has no context for {len(missing)} of the {len(wanted)} cases that are to be predicted: "
                f"{', '.join(missing)}. Add a line for each; a case is named without channel number and file ending."
            )
        if not extra:
            return None
        more = f" and {len(extra) - _SHOWN} more" if len(extra) > _SHOWN else ""
        listed = ", ".join(extra[:_SHOWN]) + more
        return f"{self.origin} names {len(extra)} case(s) that are not among the images: {listed}."


def read_contexts(text: str, known: Sequence[str]) -> ContextChoice:
    """Read what was typed for `--context`.

    Args:
        text: A context's name, in any case, or a file.
        known: Names of the model's contexts.

    Raises:
        PromptError: There is no such context.
        DataError: A file is missing, empty or not of the form, or names a case twice.
    """
    names = {name.casefold(): name for name in known}
    if text.strip().casefold() in names:
        return ContextChoice(names[text.strip().casefold()])
    file = Path(text)
    if not _is_file_name(file, text):
        raise PromptError(
            f"{describe_unknown('context', text, known)} A table of contexts by case ends in .csv or .json."
        )
    if file.suffix.lower() not in _ENDINGS:
        raise DataError(f"{file} is no table of contexts: give a file that ends in .csv or .json.")
    by_case: dict[str, str] = {}
    for where, case, context in _read_csv(file) if file.suffix.lower() == ".csv" else _read_json(file):
        if not case or not context:
            raise DataError(f"{file}, {where}: the {'context' if case else 'case'} is empty. Write case and context.")
        if case in by_case:
            raise DataError(f"{file}, {where}: the case {case!r} was named before. Keep one of the two.")
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
