"""The command `duplus`: what nnU-Net has no command for, as sub-commands.

In: the words typed. Out: the exit code, which is 0 only on success; 1 after an error that the user can put right, whose
message goes to stderr; 2 after words that cannot be parsed; 130 and 141 when interrupted or no longer read.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from duplus_nnunet import __version__
from duplus_nnunet.errors import DuplusError

# Sub-command -> what it does. Its module is imported only once it is chosen.
COMMANDS = {
    "adapt": "plan for a base, and list, show, merge and export adapters",
    "compose": "make one dataset out of several raw ones",
    "demo": "train and test on generated bodies, in minutes, and show that the text steers the network",
    "doctor": "check the installation and say how to put it right",
    "evaluate": "score predictions against references, on annotated targets only, with intervals",
    "plan-report": "show what was planned for each source, and why",
    "predict": "predict with a trained model: nnUNetv2_predict with a choice of targets",
    "prompts": "list, check and embed the texts of datasets and labels",
    "survival": "draft and check a clinical table, and cross-validate what records alone foretell",
}

# Sub-command -> its module, where that is not duplus_nnunet.commands.<sub-command>.
_MODULES = {"survival": "duplus_nnunet.survival.command.main"}

_DESCRIPTION = "Text-steered segmentation for nnU-Net v2. Planning and training are nnU-Net's own commands."
_EXAMPLE = """\
examples:
  duplus doctor                 is everything installed?
  duplus predict --help         one sub-command's options, with an example
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        arguments: The words after `duplus`; those of the process if None.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser(words[0] if words else "")
    args = parser.parse_args(words)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except DuplusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has closed it (`duplus doctor | head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports it
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def build_parser(chosen: str) -> argparse.ArgumentParser:
    """Build the parser, in full for the chosen sub-command and with one line for each other one."""
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
