"""The command `duplus`, whose sub-commands cover what nnU-Net has no command for.

Exit codes: 0 only on success; 1 after an error that the user can correct, with a message on stderr; 2 after arguments
that cannot be parsed; 130 when interrupted; 141 when the output is closed by its reader.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from duplus_nnunet import __version__
from duplus_nnunet.errors import DuplusError

# Summary of each sub-command. Its module is imported only when it is run.
COMMANDS = {
    "adapt": "adapt a trained model to a new dataset; list, show, export and merge adapters",
    "compose": "combine several raw datasets into one",
    "demo": "train and test a model on generated phantoms within minutes, and show that the prompts steer it",
    "doctor": "check the installation and show how to correct it",
    "evaluate": "score predictions against references on annotated targets, with confidence intervals",
    "example": "write a small trained model and three images, to predict within seconds",
    "plan-report": "show what was planned for each source, and why",
    "predict": "predict with a trained model: nnUNetv2_predict with selected targets",
    "prompts": "draft, check, list, compare and embed the prompts of datasets",
    "survival": "draft and check a clinical table, evaluate survival models by cross-validation, and predict",
}

# Module of each sub-command that is not in duplus_nnunet.commands.<sub-command>.
_MODULES = {"survival": "duplus_nnunet.survival.command.main"}

_DESCRIPTION = "Text-steered segmentation for nnU-Net v2. Planning and training are nnU-Net's own commands."
_EXAMPLE = """\
examples:
  duplus doctor                 is everything installed?
  duplus predict --help         options of a sub-command, with an example
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        arguments: Arguments after `duplus`; None means those of the process.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser(arguments[0] if arguments else "")
    args = parser.parse_args(arguments)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except DuplusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the output closed it (`duplus doctor | head`); discard what is still buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports it
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def build_parser(chosen: str) -> argparse.ArgumentParser:
    """Build the parser: complete for the chosen sub-command, with only a summary for all others."""
    parser = argparse.ArgumentParser(
        prog="duplus",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"duplus {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == chosen:
            module = _MODULES.get(name, f"duplus_nnunet.commands.{name.replace('-', '_')}")
            importlib.import_module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return parser
