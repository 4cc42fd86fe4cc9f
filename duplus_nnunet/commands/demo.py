"""`duplus demo`: train and test a model on generated phantoms, and show that the prompts steer the network."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from duplus_nnunet.commands.interrupts import end_like_interrupt
from duplus_nnunet.errors import DataError, PromptError, describe_unknown

if TYPE_CHECKING:
    from duplus_nnunet.demo.experiment import DemoOptions, Experiment
    from duplus_nnunet.demo.scores import Criterion
    from duplus_nnunet.demo.workspace import Workspace

_DESCRIPTION = """\
Generate abdominal phantoms with known truth as three datasets (CT, MR, PET) in which different organs are annotated,
compose them into one dataset, then plan, preprocess, train one model and predict with nnU-Net's own commands. In CT,
liver, spleen and both kidneys have the same intensity, and in every contrast both kidneys look the same, so that only
the prompt states which organ to segment. As a control, the target prompts of each contrast are exchanged, which must
make the Dice drop.

Writes report.html (the model, its scores and its predictions, for a browser), demo.png (images, predictions for each
prompt, truth), dice.json and demo.log to the folder.
The exit code is 0 only if, on unseen bodies, the mean Dice of the organs annotated in each contrast is at least 0.80,
left and right are not confused, and the Dice drops in the control. The Dice of organs that are never annotated in a
contrast is reported as well.
"""
_EXAMPLE = """\
examples:
  duplus demo
  duplus demo --folder /tmp/phantoms --targets spleen stomach --keep
"""
_LEAST_CASES = 5


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the parser of `duplus`."""
    parser = subparsers.add_parser(
        "demo",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--folder",
        type=Path,
        default=Path("demo"),
        help="output folder: new, empty, or of an earlier demo (default: %(default)s)",
    )
    add("--keep", action="store_true", help="keep nnU-Net's folders, so that the trained model can be used")
    add("--seed", type=int, default=0, help="seed of phantoms and training (default: %(default)s)")
    add("--targets", nargs="+", metavar="NAME", default=["liver", "left kidney", "right kidney"],
        help="targets to predict one at a time on one body; the first is shown in every contrast, the others in "
        "CT (default: liver, left kidney, right kidney)")  # fmt: skip
    add("--training-cases", type=int, default=12, help="training cases in each contrast (default: %(default)s)")
    add("--test-cases", type=int, default=5, help="unseen bodies, each in every contrast (default: %(default)s)")
    add("--epochs", type=int, default=5, help="training epochs (default: %(default)s)")
    add("--iterations", type=int, default=100, help="training iterations in an epoch (default: %(default)s)")
    add(
        "--device",
        choices=("cpu", "cuda", "mps"),
        help="device of training and prediction (default: cuda if available, else cpu)",
    )
    parser.set_defaults(run=run)


@end_like_interrupt()
def run(args: argparse.Namespace) -> int:
    """Run the demonstration.

    Returns:
        0 if all criteria are met, else 1.
    """
    from duplus_nnunet.demo.experiment import Experiment
    from duplus_nnunet.demo.host_commands import HostCommands
    from duplus_nnunet.demo.workspace import Workspace, count_cores

    options = _read_options(args)
    workspace = Workspace(args.folder.resolve())
    workspace.prepare()
    console = Console(sys.stdout, steps=7)
    processes = min(count_cores(), 4)
    environment = workspace.environment(os.environ)
    commands = HostCommands(environment, workspace.log, console.update, processes, options.epochs)
    started = time.monotonic()
    criteria = _run_experiment(Experiment(options, workspace, commands), console)
    passed = all(criterion.is_met for criterion in criteria)
    console.print(f"\n{_conclude(passed)} It took {time.monotonic() - started:.0f} s.")
    console.print(f"Picture: {workspace.picture}\nScores:  {workspace.scores}\nLog:     {workspace.log}")
    if workspace.report.is_file():
        console.print(f"Report:  {workspace.report} (open it in a browser)")
    if args.keep or not passed:
        console.print(_describe_next_steps(workspace))
    else:
        workspace.clean()
    return 0 if passed else 1


class Console:
    """Prints the steps of the demonstration with the time so far, and one line of progress that a terminal rewrites.

    Args:
        stream: Stream to write to.
        steps: Total number of steps.
    """

    def __init__(self, stream: TextIO, steps: int) -> None:
        self._stream = stream
        self._steps = steps
        self._step = 0
        self._started = time.monotonic()
        self._live = False

    def start_step(self, text: str) -> None:
        """Announce the next step."""
        self._step += 1
        self.print(f"[{self.elapsed()}] step {self._step} of {self._steps}: {text}")

    def print(self, text: str) -> None:
        """Write lines that are not rewritten."""
        self._write(f"{self._erase()}{text}\n")
        self._live = False

    def update(self, text: str) -> None:
        """Rewrite the line of progress; does nothing if the stream is not a terminal."""
        if self._stream.isatty():
            self._write(f"{self._erase()}[{self.elapsed()}]   {text}")
            self._live = True

    def elapsed(self) -> str:
        """Return the time since the start as minutes and seconds."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes:2d}:{seconds:02d}"

    def _erase(self) -> str:
        return "\r\x1b[K" if self._live else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _read_options(args: argparse.Namespace) -> "DemoOptions":
    from duplus_nnunet.data.anatomy import LABELS
    from duplus_nnunet.demo.experiment import DemoOptions
    from duplus_nnunet.inference.devices import choose_device

    for target in args.targets:
        if target not in LABELS:
            raise PromptError(describe_unknown("target", target, LABELS))
    limits = {"training_cases": _LEAST_CASES, "test_cases": 1, "epochs": 1, "iterations": 1, "seed": 0}
    for name, least in limits.items():
        if getattr(args, name) < least:
            option = "--" + name.replace("_", "-")
            raise DataError(f"{option} is {getattr(args, name)}; expected {least} or more.")
    return DemoOptions(
        training_cases=args.training_cases,
        test_cases=args.test_cases,
        seed=args.seed,
        epochs=args.epochs,
        iterations=args.iterations,
        targets=tuple(dict.fromkeys(args.targets)),
        device=str(choose_device(args.device)),
    )


def _run_experiment(experiment: "Experiment", console: Console) -> "list[Criterion]":
    from dataclasses import asdict

    from duplus_nnunet.demo.scores import describe_results, evaluate_criteria

    _train(experiment, console)
    _predict(experiment, console)
    console.start_step("scoring and drawing")
    results = experiment.measure()
    experiment.workspace.scores.write_text(json.dumps(asdict(results), indent=2), encoding="utf-8")
    experiment.draw()
    console.start_step("writing the report (duplus report)")
    experiment.write_report()
    criteria = evaluate_criteria(results)
    console.print(f"\nDice on {experiment.options.test_cases} unseen bodies\n{describe_results(results)}\n")
    console.print("\n".join(criterion.describe() for criterion in criteria))
    return criteria


def _train(experiment: "Experiment", console: Console) -> None:
    options = experiment.options
    console.start_step(
        f"generating CT, MR and PET images of {options.training_cases} bodies each for training, and of "
        f"{options.test_cases} bodies for testing"
    )
    experiment.write_data()
    console.start_step("composing one dataset from all three (duplus compose)")
    experiment.compose()
    console.start_step("planning and preprocessing (nnUNetv2_plan_and_preprocess -pl DuPLUSPlanner)")
    experiment.plan()
    console.start_step(
        f"training for {options.epochs * options.iterations} iterations, {options.iterations} per epoch, "
        f"on {options.device} (nnUNetv2_train -tr DuPLUSTrainer)"
    )
    experiment.train()


def _predict(experiment: "Experiment", console: Console) -> None:
    targets = " or ".join(f'"{target}"' for target in experiment.options.targets)
    console.start_step(
        "predicting the unseen bodies in every contrast (nnUNetv2_predict --context contexts.csv); one target of one "
        f"body (nnUNetv2_predict --targets {targets}); targets that are annotated in other contrasts only; and, as "
        "controls with the same weights, with exchanged context prompts or target prompts"
    )
    experiment.predict()


def _conclude(passed: bool) -> str:
    if passed:
        return "The demonstration met all criteria."
    return "The demonstration FAILED a criterion; all its files are kept."


def _describe_next_steps(workspace: "Workspace") -> str:
    from duplus_nnunet.demo.workspace import DATASET_ID, HOST_FOLDERS

    exports = " ".join(f'{name}="{workspace.root / name}"' for name in HOST_FOLDERS)
    return (
        f"To use the model:\n  export {exports}\n"
        f'  nnUNetv2_predict -i "{workspace.images}" -o OUT -d {DATASET_ID} -c 3d_fullres -f 0 -tr DuPLUSTrainer '
        f'-p DuPLUSPlans --context "{workspace.contexts}" --targets aorta'
    )
