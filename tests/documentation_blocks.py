"""Reads the blocks of commands and Python on the pages of documentation, and expands commands as a shell does."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LANGUAGES = ("bash", "python")
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", flags=re.MULTILINE | re.DOTALL)
# No program is found, so that the shell hands every command over instead of running it. What the shell does itself
# (variables, loops, quotes, lines that go on) is done by it.
# Variables that a page sets for its programs stand before the words of the command.
_RECORDER = """\
command_not_found_handle() {
    for name in ${!DUPLUS_*} ${!nnUNet_wandb*}; do printf '%s=%s\\0' "$name" "${!name}" >> "$RECORD"; done
    printf '%s\\0' "$@" >> "$RECORD"; printf '\\1\\0' >> "$RECORD"
}
id() { echo 1000; }
PATH=/nowhere
"""
_ASSIGNMENT = re.compile(r"(\w+)=(.*)", flags=re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Path of its page in the repository, such as `docs/faq.md`.
        language: Word after the fence, such as `bash`.
        text: What is in it, without indentation.
    """

    page: str
    language: str
    text: str


def list_pages() -> list[str]:
    """List README.md and all pages below docs/, but for a site that was built there."""
    pages = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
    paths = (page.relative_to(REPOSITORY) for page in pages)
    return [path.as_posix() for path in paths if "_build" not in path.parts]


def read_blocks(page: str) -> list[Block]:
    """Read the fenced blocks of a page, in order."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [
        Block(page, language, re.sub(rf"^{indent}", "", content, flags=re.MULTILINE))
        for indent, language, content in _BLOCK.findall(text)
    ]


def is_executable(block: Block) -> bool:
    """Report whether a block holds commands or Python."""
    return block.language in LANGUAGES


def expand_commands(blocks: list[Block], variables: Mapping[str, str], scratch: Path) -> Iterator[list[list[str]]]:
    """Expand the commands of blocks as one shell does that runs them one after another.

    Args:
        blocks: Blocks of commands.
        variables: All variables of the shell.
        scratch: File that is written meanwhile.

    Yields:
        For each block its commands, each as a list of words, before which there may be variables as `NAME=value`.
    """
    scratch.unlink(missing_ok=True)
    scratch.touch()
    marker = "end_of_block"
    script = _RECORDER + "".join(f"{block.text}\n{marker}\n" for block in blocks)
    subprocess.run(["/bin/bash", "-c", script], env={**variables, "RECORD": str(scratch)}, check=True)
    commands: list[list[str]] = []
    for command in scratch.read_text(encoding="utf-8").split("\1\0")[:-1]:
        words = command.split("\0")[:-1]
        if words[-1] == marker:
            yield commands
            commands = []
        else:
            commands.append(words)


def split_variables(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split the words of a command into the variables before it, by name, and the command."""
    variables: dict[str, str] = {}
    for position, word in enumerate(words):
        found = _ASSIGNMENT.fullmatch(word)
        if found is None:
            return variables, words[position:]
        variables[found[1]] = found[2]
    return variables, []
