"""Sub-commands in groups, by what one wants to do: the help of a command shows them as a map, one line each."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Group:
    """Commands for one purpose.

    Attributes:
        title: The purpose.
        commands: Name of each sub-command, with a summary of one line.
        host: nnU-Net's own commands for the purpose, as they are typed, with a summary of one line.
    """

    title: str
    commands: Mapping[str, str] = field(default_factory=dict)
    host: Mapping[str, str] = field(default_factory=dict)


def list_commands(groups: Sequence[Group]) -> dict[str, str]:
    """Map each sub-command of all groups to its summary."""
    return {name: summary for group in groups for name, summary in group.commands.items()}


def describe_groups(groups: Sequence[Group]) -> str:
    """Write a title for each group, and below it a line for each of its commands."""
    width = max(map(len, list_commands(groups)))
    lines = []
    for group in groups:
        lines += ["", group.title]
        lines += [f"  {name:<{width}}  {summary}" for name, summary in group.commands.items()]
        for words, summary in group.host.items():
            lines += [f"  {words}", f"  {'':<{width}}  {summary}"]
    return "\n".join(lines[1:])


@dataclass(frozen=True)
class CommandMap:
    """The sub-commands of a parser, whose help shows them by group.

    Args:
        parser: Parser of the command. Its usage is replaced, and the groups are appended to its description.
        groups: All of its sub-commands.
        options: Options of the command itself, as they stand in its usage.
    """

    parser: argparse.ArgumentParser
    groups: Sequence[Group]
    options: str = "[-h]"
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]" = field(init=False)

    def __post_init__(self) -> None:
        prog = self.parser.prog
        self.parser.usage = f"{prog} {self.options} COMMAND ..."
        self.parser.description = f"{(self.parser.description or '').strip()}\n\n{describe_groups(self.groups)}"
        self.parser.formatter_class = argparse.RawDescriptionHelpFormatter
        # The groups take the place of argparse's own list, which has no order and no titles.
        made = self.parser.add_subparsers(metavar="COMMAND", required=True, prog=prog, help=argparse.SUPPRESS)
        object.__setattr__(self, "subparsers", made)

    def add(self, name: str, example: str, description: str = "", **more: bool) -> argparse.ArgumentParser:
        """Add a sub-command.

        Args:
            name: Its name in the groups.
            example: What its help ends with: a line for each example, which may be followed by remarks.
            description: What its help begins with; the summary of the groups if empty.
            more: Arguments of the parser, such as `allow_abbrev`.
        """
        summary = list_commands(self.groups)[name]
        title = "examples" if example.count(f"{self.parser.prog} {name}") > 1 else "example"
        return self.subparsers.add_parser(
            name,
            help=summary,
            description=description or f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"{title}:\n{example.rstrip()}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **more,  # type: ignore[arg-type]
        )
