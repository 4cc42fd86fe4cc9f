# PYTHON_ARGCOMPLETE_OK
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
from duplus_nnunet.command_map import CommandMap, Group, list_commands
from duplus_nnunet.errors import DuplusError

# Every sub-command stands in one group. Its module is imported only when it is run.
GROUPS = (
    Group(
        "Start",
        {
            "doctor": "check the installation, and show how to correct it",
            "example": "write a small trained model and three images, to predict within seconds",
            "demo": "train and test a model on generated phantoms within minutes",
            "completion": "let the shell complete commands, options and names",
        },
    ),
    Group(
        "Prepare data and prompts",
        {
            "prompts": "draft, check, show, compare and embed the prompts of datasets",
            "convert": "make a raw dataset from the download of a public one",
            "compose": "combine several raw datasets into one",
            "plan-report": "show what was planned for each source, and why",
        },
    ),
    Group(
        "Plan and train: nnU-Net's own commands, with the names of our planner and trainer",
        host={
            "nnUNetv2_plan_and_preprocess -d 4 -pl DuPLUSPlanner -c 3d_fullres": "plan and preprocess dataset 4",
            "nnUNetv2_train 4 3d_fullres 0 -tr DuPLUSTrainer -p DuPLUSPlans": "train fold 0",
        },
    ),
    Group(
        "Train on a cluster",
        {"submit": "send folds, sources, ablations and seeds as jobs to SLURM, and show how far they are"},
    ),
    Group(
        "Predict and score",
        {
            "predict": "predict chosen targets, named or described in words",
            "ask": "open one image, and ask for one target after another, each within moments",
            "dicom": "list the DICOM series of a folder or zip file, and write them as NIfTI",
            "evaluate": "score predictions on annotated targets, with confidence intervals",
            "cohort": "measure a folder of label maps: volumes, intensities, and what is implausible, a row an image",
            "report": "write what a model is, its scores and its predictions as one page for a browser",
        },
        host={
            "nnUNetv2_predict, nnUNetv2_predict_from_modelfolder": "nnU-Net's own commands, with the options of predict"
        },
    ),
    Group("Adapt", {"adapt": "adapt a trained model to a new dataset; list, show, export and merge adapters"}),
    Group("Prognosis", {"survival": "clinical tables, survival models, their evaluation, and predicted risks"}),
)
COMMANDS = list_commands(GROUPS)

# Module of each sub-command that is not in duplus_nnunet.commands.<sub-command>.
_MODULES = {"survival": "duplus_nnunet.survival.command.main"}
# Set by the shell when it asks for completions.
_COMPLETION = "_ARGCOMPLETE"

_DESCRIPTION = "Text-steered segmentation for nnU-Net v2."
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
    if _COMPLETION in os.environ:
        return int(importlib.import_module("duplus_nnunet.commands.completion").complete(build_parser))
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser(arguments[0] if arguments else "")
    args = read_arguments(parser, arguments)
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
    parser = argparse.ArgumentParser(prog="duplus", description=_DESCRIPTION, epilog=_EXAMPLE)
    parser.add_argument("--version", action="version", version=f"duplus {__version__}")
    commands = CommandMap(parser, GROUPS, "[-h] [--version]")
    for name, summary in COMMANDS.items():
        if name == chosen:
            module = _MODULES.get(name, f"duplus_nnunet.commands.{name.replace('-', '_')}")
            importlib.import_module(module).add_parser(commands.subparsers)
        else:
            commands.subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def read_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse arguments; a sub-command that hands its words on to nnU-Net gets them as `words`, unknown ones too.

    One that takes more for another command gets the words after `--` as `more`.
    """
    args, unknown = parser.parse_known_args(arguments)
    if getattr(args, "takes_more", False):
        end = arguments.index("--") if "--" in arguments else len(arguments)
        args, unknown = parser.parse_known_args(arguments[:end])
        args.more = list(arguments[end + 1 :])
    if unknown and not getattr(args, "hands_on", False):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.words = list(arguments[1:])
    return args
