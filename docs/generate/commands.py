"""Writes the commands of `duplus` as Markdown, from their parsers: neither terminal nor Python version matters."""

import argparse
import re
from collections.abc import Iterator

_LISTED = (None, False, argparse.SUPPRESS, (), [])


def write_commands(names: list[str], build: object) -> str:
    """Write all sub-commands.

    Args:
        names: Names of the sub-commands.
        build: Function that makes the parser of `duplus`, complete for one sub-command.
    """
    blocks = []
    for name in names:
        parser = _find_subparsers(build(name)).choices[name]
        blocks += list(_write_command(parser, 2))
    return "\n\n".join(blocks)


def _write_command(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{parser.prog}`"
    if parser.description:
        yield write_help(parser.description)
    subparsers = _find_subparsers(parser)
    if not subparsers:
        yield f"```text\n{_describe_usage(parser)}\n```"
        yield from write_groups(parser)
    if parser.epilog:
        yield write_help(parser.epilog)
    for child in subparsers.choices.values() if subparsers else ():
        yield from _write_command(child, level + 1)


def write_help(text: str) -> str:
    """Write a description or an epilog: indented lines, and the line that announces them, are kept as they are."""
    blocks: list[str] = []
    code: list[str] = []
    for block in [*re.split(r"\n\s*\n", text.strip("\n")), ""]:
        if any(line.startswith("  ") for line in block.splitlines()):
            code.append(block)
            continue
        if code:
            kept = "\n\n".join(code)
            blocks.append(f"```text\n{kept}\n```")
            code = []
        blocks.append(block.replace("<", "&lt;"))
    return "\n\n".join(blocks).rstrip()


def write_groups(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Write the arguments of a parser, by group."""
    standard = {"positional arguments": "Arguments:", "options": "Options:"}
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if _is_listed(action)]
        if not actions:
            continue
        title = group.title or ""
        yield standard.get(title, f"{title[:1].upper()}{title[1:]}:")
        yield "\n".join(_describe(action, parser.prog) for action in actions)


def _is_listed(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._HelpAction | argparse._SubParsersAction) and action.help != "==SUPPRESS=="


def _find_subparsers(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser] | None":
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next(found, None)


def _describe_usage(parser: argparse.ArgumentParser) -> str:
    """Write the usage: what is required, in full, and that there are options."""
    if parser.usage:
        return "\n".join(line.strip() for line in parser.usage.splitlines())
    listed = [action for action in parser._actions if _is_listed(action)]
    required = [_name_with_value(action) for action in listed if action.option_strings and action.required]
    optional = ["[options]"] if any(action.option_strings and not action.required for action in listed) else []
    positional = [_show_value(action) for action in listed if not action.option_strings]
    return " ".join((parser.prog, *positional, *required, *optional))


def _name_with_value(action: argparse.Action, index: int = 0) -> str:
    return " ".join(word for word in (action.option_strings[index], _show_value(action)) if word)


def _show_value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    shown = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest)
    name = " ".join(shown) if isinstance(shown, tuple) else shown
    name = name if not action.option_strings or action.metavar or action.choices else name.upper()
    forms = {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]", "A...": f"{name} ..."}
    forms[argparse.REMAINDER] = f"{name} ..."
    return " ".join([name] * action.nargs) if isinstance(action.nargs, int) else forms.get(str(action.nargs), name)


def _describe(action: argparse.Action, prog: str) -> str:
    count = len(action.option_strings)
    names = ", ".join(f"`{_name_with_value(action, i)}`" for i in range(count)) or f"`{_show_value(action)}`"
    values = {**vars(action), "prog": prog}
    text = (action.help or "").strip() % values if "%" in (action.help or "") else (action.help or "").strip()
    parts = [text] if text else []
    if action.required and count:
        parts.append("required")
    if action.default not in _LISTED and "default" not in text.casefold():
        parts.append(f"default: {action.default}")
    meaning = "; ".join(parts).replace("<", "&lt;")
    return f"- {names}: {meaning}" if meaning else f"- {names}"
