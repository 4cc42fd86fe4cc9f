"""Reads docstrings in Google style and writes them as Markdown."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NAMED = ("Args", "Attributes", "Raises")
PLAIN = ("Returns", "Yields", "Example", "Examples")
_HEADING = re.compile(rf"({'|'.join((*NAMED, *PLAIN))}):")
_ITEM = re.compile(r"    (\*{0,2}\w[\w.]*): (.*)")


@dataclass
class Docstring:
    """A docstring in parts.

    Attributes:
        text: What stands outside of the sections.
        named: Of the sections in NAMED, the text of each name.
        plain: Text of the sections in PLAIN.
    """

    text: str = ""
    named: dict[str, dict[str, str]] = field(default_factory=dict)
    plain: dict[str, str] = field(default_factory=dict)


def read_docstring(documented: object) -> Docstring:
    """Split the docstring of a class, function, property or module into its parts."""
    result, section = Docstring(), ""
    for line in (inspect.getdoc(documented) or "").splitlines():
        heading = _HEADING.fullmatch(line)
        if heading:
            section = heading[1]
        elif section and line and not line.startswith(" "):
            section, result.text = "", f"{result.text}{line}\n"
        elif section in NAMED:
            _add_item(result.named.setdefault(section, {}), line)
        elif section:
            result.plain[section] = f"{result.plain.get(section, '')}{line.removeprefix('    ')}\n"
        else:
            result.text += f"{line}\n"
    return result


def _add_item(items: dict[str, str], line: str) -> None:
    start = _ITEM.fullmatch(line)
    if start:
        items[start[1]] = start[2]
    elif line.strip():
        last = next(reversed(items))
        items[last] = f"{items[last]} {line.strip()}"


def write_text(text: str) -> str:
    """Write paragraphs as Markdown; examples with `>>>`, and indented lines, become blocks of code."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        first_code = next((number for number, line in enumerate(lines) if line.startswith((">>>", "  "))), len(lines))
        prose, code = lines[:first_code], lines[first_code:]
        if prose:
            blocks.append("\n".join(prose))
        if code:
            language = "pycon" if code[0].startswith(">>>") else "text"
            blocks.append("\n".join((f"```{language}", *code, "```")))
    return "\n\n".join(block for block in blocks if block.strip())


def write_items(title: str, items: Mapping[str, str]) -> str:
    """Write names with their texts as a list below a title."""
    listed = "\n".join(f"- `{name}`: {text}" for name, text in items.items())
    return f"{title}\n\n{listed}"


def write_docstring(documented: object, skip: tuple[str, ...] = ()) -> str:
    """Write a whole docstring as Markdown, but for the sections in `skip`."""
    parts = read_docstring(documented)
    blocks = [write_text(parts.text)]
    titles = {"Args": "Arguments:", "Attributes": "Attributes:", "Raises": "Raises:"}
    for section in ("Args", "Attributes"):
        if section in parts.named and section not in skip:
            blocks.append(write_items(titles[section], parts.named[section]))
    for section in ("Returns", "Yields"):
        if section in parts.plain and section not in skip:
            blocks.append(f"{section}: {write_text(parts.plain[section])}")
    if "Raises" in parts.named and "Raises" not in skip:
        blocks.append(write_items(titles["Raises"], parts.named["Raises"]))
    for section in ("Example", "Examples"):
        if section in parts.plain and section not in skip:
            text = parts.plain[section]
            code = text if ">>>" in text else f"```python\n{text.rstrip()}\n```"
            blocks.append(f"Example:\n\n{write_text(text) if '>>>' in text else code}")
    return "\n\n".join(block for block in blocks if block)
