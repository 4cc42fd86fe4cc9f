"""Fills the generated parts of the pages in docs/ from the code of the installed package.

A part stands between `<!-- generated: NAME -->`, or `<!-- generated: NAME ARGUMENT -->`, and `<!-- end -->`.

    python docs/make_reference.py            writes the pages that differ, and names them
    python docs/make_reference.py --check    writes nothing; exit code 1 if a page differs
"""

import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path

from generate.commands import write_commands, write_help
from generate.costs import write_data_costs, write_long_costs, write_training_costs
from generate.forms import write_columns, write_form, write_settings
from generate.index import write_index
from generate.interface import write_errors, write_interface

DOCS = Path(__file__).resolve().parent
_PART = re.compile(r"(<!-- generated: (\w+) ?(\S*) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def _commands(_: str) -> str:
    from duplus_nnunet import cli

    return write_commands(list(cli.COMMANDS), cli.build_parser)


def _planning(_: str) -> str:
    from duplus_nnunet.planners.entry import HELP

    return write_help(HELP)


def _training(_: str) -> str:
    from duplus_nnunet.train import HELP

    return write_help(HELP)


def _settings(_: str) -> str:
    from duplus_nnunet.settings import Settings

    return write_settings(Settings)


def _form(name: str) -> str:
    return write_form(pkgutil.resolve_name(f"duplus_nnunet.{name}"))


def _columns(name: str) -> str:
    return write_columns(pkgutil.resolve_name(f"duplus_nnunet.{name}"))


def _names(name: str) -> str:
    return ", ".join(f"`{each}`" for each in pkgutil.resolve_name(f"duplus_nnunet.{name}"))


def _interface(_: str) -> str:
    from duplus_nnunet import api

    return write_interface(api)


def _errors(_: str) -> str:
    from duplus_nnunet import errors

    return write_errors(errors, errors.DuplusError)


WRITERS: dict[str, Callable[[str], str]] = {
    "columns": _columns,
    "commands": _commands,
    "data_costs": lambda _: write_data_costs(),
    "errors": _errors,
    "form": _form,
    "index": lambda _: write_index(DOCS),
    "interface": _interface,
    "long_costs": lambda _: write_long_costs(),
    "names": _names,
    "planning": _planning,
    "settings": _settings,
    "training": _training,
    "training_costs": lambda _: write_training_costs(),
}


def fill(page: str) -> str:
    """Return a page with its generated parts as the code gives them now.

    Raises:
        KeyError: The page asks for a part that there is no writer for.
    """
    return _PART.sub(lambda found: f"{found[1]}\n{WRITERS[found[2]](found[3]).strip()}\n\n{found[4]}", page)


def list_pages() -> list[Path]:
    """List the pages that may have generated parts."""
    return [DOCS / "index.md", DOCS / "how-to" / "cluster.md", *sorted((DOCS / "reference").glob("*.md"))]


def main(arguments: list[str]) -> int:
    """Write the pages that differ, or only name them."""
    differing = []
    for file in list_pages():
        page = file.read_text(encoding="utf-8")
        filled = fill(page)
        if filled != page:
            differing.append(file)
            if "--check" not in arguments:
                file.write_text(filled, encoding="utf-8", newline="\n")
    verb = "differs from the code: run `make reference`" if "--check" in arguments else "written"
    sys.stdout.writelines(f"{file.relative_to(DOCS.parent)} {verb}\n" for file in differing)
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
