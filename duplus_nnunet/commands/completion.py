"""`duplus completion`: prints what makes a shell complete commands, options and names, and answers its questions."""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import HostError
from duplus_nnunet.plans_section import PLANS_KEY

SHELLS = ("bash", "zsh", "fish", "tcsh")
_EPILOG = """\
examples: complete in this shell
  eval "$(duplus completion bash)"
  eval "$(duplus completion zsh)"
  duplus completion fish | source

examples: complete in every new shell
  duplus completion bash > ~/.local/share/bash-completion/completions/duplus
  duplus completion fish > ~/.config/fish/completions/duplus.fish
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "completion",
        description="Print the lines that make a shell complete sub-commands, options, choices and files of `duplus`, "
        "the datasets in nnUNet_raw, and, after -m FOLDER, the targets and contexts of that model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the lines for a shell."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise HostError("Completion needs argcomplete, which is not installed: pip install argcomplete") from error
    print(shellcode(["duplus"], shell=args.shell).strip())
    return 0


def complete(build_parser: Callable[[str], argparse.ArgumentParser]) -> int:
    """Answer a shell that asks what may follow on its line, and end the process.

    Args:
        build_parser: Makes the parser of `duplus`, complete for one sub-command.

    Returns:
        1 if argcomplete is not installed; the process ends otherwise.
    """
    try:
        import argcomplete
    except ImportError:
        return 1
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0") or 0) or None]
    words = [word for word in line.split()[1:] if not word.startswith("-")]
    parser = build_parser(words[0] if words else "")
    for action in _list_actions(parser):
        completer = _COMPLETERS.get(action.dest) or _COMPLETERS.get(str(action.metavar))
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)
    return 0


def _list_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its sub-commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _list_actions(sub)


def list_datasets(**_: Any) -> list[str]:
    """List the names of the datasets in nnUNet_raw."""
    raw = os.environ.get("nnUNet_raw")  # noqa: SIM112, nnU-Net's spelling
    return sorted(path.name for path in Path(raw).glob("Dataset*_*")) if raw else []


def list_targets(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """List the targets of the model that `-m` names."""
    return [str(target["name"]) for target in _read_prompts(parsed_args).get("targets", ())]


def list_contexts(parsed_args: argparse.Namespace, prefix: str = "", **_: Any) -> Iterable[str]:
    """List the contexts of the model that `-m` names, and files, since a table of contexts may be meant."""
    from argcomplete.completers import FilesCompleter

    return [*map(str, _read_prompts(parsed_args).get("contexts", ())), *FilesCompleter()(prefix)]


def _read_prompts(args: argparse.Namespace) -> dict[str, Any]:
    """Read the model's section of its plans; empty if there is no such model, as a shell shows no messages."""
    folder = getattr(args, "m", None) or getattr(args, "model", None)
    try:
        found = json.loads(Path(str(folder), "plans.json").read_text(encoding="utf-8"))[PLANS_KEY]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


_COMPLETERS: dict[str, Callable[..., Iterable[str]]] = {
    "targets": list_targets,
    "keep_largest": list_targets,
    "context": list_contexts,
    "DATASET": list_datasets,
    "SOURCE": list_datasets,
}
