"""`duplus prompts sensitivity`: measures how the wording of prompts changes the Dice score of a trained model."""

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.command_map import CommandMap
from duplus_nnunet.text_table import format_table

if TYPE_CHECKING:
    from duplus_nnunet.sensitivity.study import SensitivityReport
    from duplus_nnunet.sensitivity.wordings import Score, TargetScores

_DESCRIPTION = """\
Score every wording of a model's targets on labelled cases: the target prompt, the prompt with each synonym, and each
paraphrase.

The Dice of a wording is that of the target's own mask (probability above 0.5), regardless of other targets; nan if the
case does not contain the target. The spread of a target is the Dice of its best wording minus that of its worst. Only
the sentence varies; the bare name that is encoded with it is unchanged. All wordings share one pass of the network, so
that each image is preprocessed, and its features are computed, only once.
"""
_EXAMPLE = """\
  duplus prompts sensitivity -m MODEL_FOLDER -i case_0000.nii.gz -l case.nii.gz --json report.json
  duplus prompts sensitivity -m MODEL_FOLDER -i imagesTs -l labelsTs -f 0 --targets "left kidney" --contexts-too
"""


def add_sensitivity(commands: CommandMap) -> None:
    """Declare the sub-command."""
    parser = commands.add("sensitivity", _EXAMPLE, _DESCRIPTION, allow_abbrev=False)
    parser.add_argument("-m", "--model", metavar="FOLDER", required=True, help="model folder, with fold_0 and so on")
    parser.add_argument(
        "-i", "--images", metavar="FILE", nargs="+", required=True,
        help="images of one case, one file for each channel; or a folder of cases, named as in imagesTr",
    )  # fmt: skip
    parser.add_argument(
        "-l", "--label", metavar="FILE", required=True, help="label map of the case, or the folder of label maps"
    )
    parser.add_argument(
        "-f", "--folds", metavar="FOLD", nargs="+", help="folds to average (default: all trained folds)"
    )
    parser.add_argument(
        "-chk", metavar="NAME", default="checkpoint_final.pth", help="checkpoint (default: %(default)s)"
    )
    parser.add_argument(
        "--context", metavar="NAME", help="context of the images (default: the model's default context)"
    )
    parser.add_argument("--targets", metavar="NAME", nargs="+", help="targets to score (default: all)")
    parser.add_argument(
        "--contexts-too",
        action="store_true",
        help="vary the context prompt too; each of its wordings needs a pass of its own",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write all results to this file, with the Dice of each case"
    )
    parser.add_argument("-device", choices=("cpu", "cuda", "mps"), help="device (default: cuda if available, else cpu)")
    parser.add_argument(
        "-step_size",
        type=_read_share,
        default=0.5,
        help="step size of the sliding window, as a share of the patch (default: %(default)s)",
    )
    words = "no mirror images, even if the model was trained with them: faster"
    parser.add_argument("--disable_tta", action="store_true", help=words)
    parser.add_argument(
        "--memory", metavar="GIB", type=_read_positive, default=4.0,
        help="memory for the probability maps of one pass; less memory needs more passes (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=run_sensitivity)


def run_sensitivity(args: argparse.Namespace) -> int:
    """Measure, print the report and, on request, write it."""
    from duplus_nnunet.files import require_writable_file, write_text
    from duplus_nnunet.inference.devices import choose_device
    from duplus_nnunet.sensitivity.study import MeasurementSettings, SensitivityRequest, measure_sensitivity

    if args.json:
        require_writable_file(Path(args.json), "Choose another file with --json.")
    request = SensitivityRequest(
        model=args.model,
        images=tuple(args.images),
        label=args.label,
        folds=tuple(args.folds) if args.folds else None,
        checkpoint=args.chk,
        context=args.context,
        targets=tuple(args.targets or ()),
        with_contexts=args.contexts_too,
    )
    device = str(choose_device(args.device))
    settings = MeasurementSettings(device, args.step_size, not args.disable_tta, args.memory, sys.stderr.isatty())
    with contextlib.redirect_stdout(sys.stderr):  # nnU-Net's output is not part of the report
        report = measure_sensitivity(request, settings)
    for line in describe_report(report):
        print(line)
    if args.json:
        content = {"model": args.model, "checkpoint": args.chk, **to_json(report)}
        write_text(Path(args.json), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        print(f"Wrote {args.json}.")
    return 0


def describe_report(report: "SensitivityReport") -> Iterator[str]:
    """Yield the lines of the report: a table for each target, and a summary."""
    several = f", mean over {len(report.cases)} cases" if len(report.cases) > 1 else ""
    yield f"context {report.context}: context prompt {report.context_prompt!r}"
    yield f"{'case ' if not several else 'cases '}{', '.join(report.cases)}; Dice of each target's own mask{several}"
    for title, targets in (
        ("wordings of target prompts", report.targets),
        ("wordings of the context prompt", report.contexts),
    ):
        if targets:
            yield ""
            yield title
            for target in targets:
                yield from _write_target(target)
            yield _sum_up(title, targets)


def to_json(report: "SensitivityReport") -> dict[str, Any]:
    """Return the report as plain data for JSON, with null in place of NaN."""
    return {
        "context": report.context,
        "context_prompt": report.context_prompt,
        "cases": list(report.cases),
        "targets": [_target_to_json(target) for target in report.targets],
        "contexts": [_target_to_json(target) for target in report.contexts],
    }


def _write_target(target: "TargetScores") -> Iterator[str]:
    label = f"{target.target} (label value {target.value})"
    if math.isnan(target.spread):
        yield f"  {label}: not in the label map"
        return
    worst = target.worst
    yield f"  {label}: spread {target.spread:.3f}, worst {worst.dice:.3f} by {worst.wording.text!r}"
    rows = [(f"{score.dice:.3f}", score.wording.kind, score.wording.text) for score in target.scores]
    yield from format_table(rows, indent="    ")


def _sum_up(title: str, targets: "tuple[TargetScores, ...]") -> str:
    known = [target for target in targets if not math.isnan(target.spread)]
    if not known:
        return f"{title}: none of the {len(targets)} target(s) occurs in the label maps, so that nothing was scored."
    widest = max(known, key=lambda target: target.spread)
    mean = sum(target.spread for target in known) / len(known)
    best = sum(target.own.dice >= max(score.dice for score in target.scores) for target in known)
    return (
        f"{title}: spread of {len(known)} of {len(targets)} target(s) {mean:.3f} on average, at most "
        f"{widest.spread:.3f} ({widest.target}); the model's own wording is the best one for {best} of them."
    )


def _target_to_json(target: "TargetScores") -> dict[str, Any]:
    known = not math.isnan(target.spread)
    return {
        "name": target.target,
        "value": target.value,
        "spread": _plain(target.spread),
        "worst": target.worst.wording.text if known else None,
        "wordings": [_score_to_json(score) for score in target.scores],
    }


def _score_to_json(score: "Score") -> dict[str, Any]:
    by_case = {name: _plain(value) for name, value in score.by_case.items()}
    return {"text": score.wording.text, "kind": score.wording.kind, "dice": _plain(score.dice), "by_case": by_case}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _read_share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share of the patch: expected a number above 0 and at most 1")
    return value


def _read_positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not an amount of memory: expected a number above 0")
    return value
