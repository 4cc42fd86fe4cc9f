"""`duplus demo`: train and test on generated bodies, in minutes, and show that the text steers the network."""

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
    from duplus_nnunet.demo.scores import Bar
    from duplus_nnunet.demo.workspace import Workspace

_DESCRIPTION = """\
Generates abdomens with known truth as three datasets, CT, MR and PET, with other organs annotated in each. Composes
them into one, then plans, preprocesses, trains one model and predicts with nnU-Net's own commands. In CT liver, spleen
and both kidneys share one intensity, and the kidneys look alike everywhere, so only the prompt can say which is meant;
as a control, the prompts are exchanged between the targets of a contrast, and the Dice has to break down.

Writes into the folder: demo.png (image, prediction under each prompt, truth), dice.json and demo.log.
Exit code 0 only if in each contrast the mean Dice of what is annotated there is 0.80 or more on unseen bodies, left and
right are not confused, and the control breaks down. Organs that a contrast never had annotated are reported too.
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
        help="train and test on generated bodies, in minutes, and show that the text steers the network",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--folder", type=Path, default=Path("demo"), help="where everything goes: new, empty, or of an earlier demo")
    add("--keep", action="store_true", help="keep nnU-Net's folders, so that the trained model can be tried")
    add("--seed", type=int, default=0, help="of the generated bodies (default: %(default)s)")
    add("--targets", nargs="+", metavar="NAME", default=["liver", "left kidney", "right kidney"],
        help="asked for one at a time on one body; the first is shown in every contrast, the others in CT (default: "
        "liver, left kidney, right kidney)")  # fmt: skip
    add("--training-cases", type=int, default=12, help="of each contrast (default: %(default)s)")
    add("--test-cases", type=int, default=5, help="bodies, each in every contrast (default: %(default)s)")
    add("--epochs", type=int, default=16, help="default: %(default)s")
    add("--iterations", type=int, default=100, help="training iterations in an epoch (default: %(default)s)")
    add("--device", choices=("cpu", "cuda", "mps"), help="default: cuda if there is one, else cpu")
    parser.set_defaults(run=run)


@end_like_interrupt()
def run(args: argparse.Namespace) -> int:
    """Run the demonstration.

    Returns:
        0 if it shows what it has to show, else 1.
    """
    from duplus_nnunet.demo.experiment import Experiment
    from duplus_nnunet.demo.host_commands import HostCommands
    from duplus_nnunet.demo.workspace import Workspace, count_cores

    options = _read_options(args)
    workspace = Workspace(args.folder.resolve())
    workspace.prepare()
    console = Console(sys.stdout, steps=8)
    commands = HostCommands(workspace.environment(os.environ), workspace.log, console.show, min(count_cores(), 4))
    started = time.monotonic()
    bars = _carry_out(Experiment(options, workspace, commands), console)
    passed = all(bar.holds for bar in bars)
    console.say(f"\n{_conclude(passed)} It took {time.monotonic() - started:.0f} s.")
    console.say(f"Picture: {workspace.picture}\nScores:  {workspace.scores}\nLog:     {workspace.log}")
    if args.keep or not passed:
        console.say(_say_how_to_go_on(workspace))
    else:
        workspace.clean()
    return 0 if passed else 1


class Console:
    """Announces steps on a stream.

    Args:
        stream: Where to write.
        steps: How many steps there will be.
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
        self.say(f"[{self.elapsed()}] step {self._step} of {self._steps}: {text}")

    def say(self, text: str) -> None:
        """Write lines that stay."""
        self._write(f"{self._erase()}{text}\n")
        self._live = False

    def show(self, text: str) -> None:
        """Rewrite the moving line; does nothing where the stream is not a terminal."""
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


def _carry_out(experiment: "Experiment", console: Console) -> "list[Bar]":
    from dataclasses import asdict

    from duplus_nnunet.demo.scores import describe_results, judge

    _train(experiment, console)
    _predict(experiment, console)
    console.start_step("scoring and drawing")
    results = experiment.measure()
    experiment.workspace.scores.write_text(json.dumps(asdict(results), indent=2), encoding="utf-8")
    experiment.draw()
    bars = judge(results)
    console.say(f"\nDice on {experiment.options.test_cases} unseen bodies\n{describe_results(results)}\n")
    console.say("\n".join(bar.describe() for bar in bars))
    return bars


def _train(experiment: "Experiment", console: Console) -> None:
    options = experiment.options
    console.start_step(
        f"generating CT, MR and PET of {options.training_cases} bodies each to train on and of "
        f"{options.test_cases} to test on"
    )
    experiment.write_data()
    console.start_step("making one dataset of all three (duplus compose)")
    experiment.compose()
    console.start_step("planning and preprocessing (nnUNetv2_plan_and_preprocess -pl DuPLUSPlanner)")
    experiment.plan()
    console.start_step(
        f"training for {options.epochs * options.iterations} iterations, {options.iterations} an epoch, "
        f"on {options.device} (nnUNetv2_train -tr DuPLUSTrainer)"
    )
    experiment.train()


def _predict(experiment: "Experiment", console: Console) -> None:
    console.start_step("predicting the unseen bodies in every contrast (nnUNetv2_predict --context contexts.csv)")
    experiment.predict_all()
    targets = " or ".join(f'"{target}"' for target in experiment.options.targets)
    console.start_step(f"predicting one target on one body (nnUNetv2_predict --targets {targets}), side by side")
    experiment.predict_one_body()
    console.start_step(
        "predicting what was never annotated in a contrast, but in others; and as controls, with the same weights, "
        "each T1 or each T2 exchanged for another one, side by side"
    )
    experiment.predict_transfer_and_controls()


def _conclude(passed: bool) -> str:
    if passed:
        return "The demonstration shows what it has to show."
    return "The demonstration MISSED a bar; everything it made is kept."


def _say_how_to_go_on(workspace: "Workspace") -> str:
    from duplus_nnunet.demo.workspace import DATASET_ID, HOST_FOLDERS

    exports = " ".join(f'{name}="{workspace.root / name}"' for name in HOST_FOLDERS)
    return (
        f"Try the model:\n  export {exports}\n"
        f'  nnUNetv2_predict -i "{workspace.images}" -o OUT -d {DATASET_ID} -c 3d_fullres -f 0 -tr DuPLUSTrainer '
        f'-p DuPLUSPlans --context "{workspace.contexts}" --targets aorta'
    )
