"""`duplus adapt`: a dataset planned for a trained base, and what becomes of the adapters that are trained for it."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duplus_nnunet.adaptation.export import AdaptedModel
    from duplus_nnunet.adaptation.files import Card

_EPILOG = """\
example: a new dataset for a trained model, which goes on predicting what it did to the bit
  duplus adapt plan 62 --from-model BASE
  nnUNetv2_train 62 3d_fullres 0 -tr DuPLUSLoRATrainer -p DuPLUSPlans \\
      -pretrained_weights BASE/fold_0/checkpoint_final.pth
  duplus adapt list
  nnUNetv2_predict -i IN -o OUT -d 62 -c 3d_fullres -f 0 -tr DuPLUSLoRATrainer -p DuPLUSPlans --context sarcoma_pet
  duplus adapt export MODEL -f 0 -o ADAPTER
  nnUNetv2_predict_from_modelfolder -i IN -o OUT -m BASE -f 0 --adapters ADAPTER OTHER_ADAPTER --context sarcoma_pet
  duplus adapt merge MODEL -f 0 -o MERGED
"""
_VARIABLE = "nnUNet_results"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "adapt",
        help="plan for a base, and list, show, merge and export adapters",
        description="Adapt a trained model, the base, to a new dataset by LoRA. The base's own targets stay as they "
        "are; the adapter is a small file beside it.",
        epilog=_EPILOG,
        formatter_class=raw,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    plan = actions.add_parser("plan", help="plan and preprocess a dataset for a base", formatter_class=raw)
    plan.add_argument("dataset", metavar="DATASET", help="a dataset's number")
    plan.add_argument("--from-model", metavar="FOLDER", required=True, help="model folder of the base")
    plan.add_argument("-pl", metavar="PLANNER", default="DuPLUSPlanner", help="default: %(default)s")
    plan.add_argument("-c", metavar="NAME", nargs="+", default=["3d_fullres"], help="default: 3d_fullres")
    plan.add_argument("-np", metavar="N", default=None, help="processes for preprocessing; default: nnU-Net's")
    listed = actions.add_parser("list", help="list the adapters in a folder", formatter_class=raw)
    listed.add_argument("folder", nargs="?", metavar="FOLDER", help="default: nnUNet_results")
    listed.add_argument("--json", action="store_true", help="print JSON")
    show = actions.add_parser("show", help="say what an adapter is", formatter_class=raw)
    show.add_argument("adapter", metavar="ADAPTER", help="folder with adapter.safetensors")
    show.add_argument("--json", action="store_true", help="print JSON")
    export = actions.add_parser("export", help="write an adapter by itself", formatter_class=raw)
    merge = actions.add_parser("merge", help="make a plain model of an adapter and its base", formatter_class=raw)
    for one in (export, merge):
        one.add_argument("model", metavar="MODEL", help="model folder of DuPLUSLoRATrainer, or a fold in it")
        one.add_argument("-f", metavar="FOLD", default=None, help="default: the only one there")
        one.add_argument("-chk", metavar="NAME", default="checkpoint_final.pth", help="default: %(default)s")
        one.add_argument("-o", metavar="FOLDER", required=True, help="where to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run an action."""
    actions = {"plan": _plan, "list": _list, "show": _show, "export": _export, "merge": _merge}
    return actions[args.action](args)


def _plan(args: argparse.Namespace) -> int:
    """Hand over to nnU-Net's command."""
    from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as host

    words = ["-d", args.dataset, "-pl", args.pl, "-c", *args.c, "--from-model", args.from_model]
    before = sys.argv
    sys.argv = ["duplus adapt plan", *words, *(["-np", args.np] if args.np else [])]
    try:
        host.plan_and_preprocess_entry()
    finally:
        sys.argv = before
    return 0


def _list(args: argparse.Namespace) -> int:
    from duplus_nnunet.adaptation.files import CARD, WEIGHTS, read_card
    from duplus_nnunet.errors import DataError, DuplusError

    place = args.folder or os.environ.get(_VARIABLE)
    if not place or not Path(place).is_dir():
        raise DataError(f"There is no folder {place or f'given, and {_VARIABLE} is not set'}. Name one with adapters.")
    rows = []
    for file in sorted(Path(place).rglob(CARD)):
        try:
            rows.append((file.parent, read_card(file), (file.parent / WEIGHTS).stat().st_size))
        except (DuplusError, OSError) as error:
            print(f"warning: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps([{"folder": str(folder), **_summarise(card), "bytes": size} for folder, card, size in rows]))
        return 0
    for folder, card, size in rows:
        targets = sorted({name for many in card.targets.values() for name in many})
        print(f"{folder}\n  {card.name}: {', '.join(targets)}; base {card.base}; {size / 1e6:.1f} MB")
    if not rows:
        print(f"no adapters in {place}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from duplus_nnunet.adaptation.files import read_adapter

    card = read_adapter(args.adapter).card
    found = _summarise(card)
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    spec, counts = card.spec, card.parameters
    print(f"adapter {card.name}")
    print(f"  base: {card.base} (weights {card.checksum[:16]}...)")
    own = [name for name, has in (("MLP_FiLM", spec.film), ("MLP_Pred and projections", spec.head)) if has]
    print(
        f"  LoRA: rank {spec.r}, alpha {spec.lora_alpha:g}, {len(spec.layers)} convolutions, {counts['lora']} weights"
    )
    print(f"  LoRA's share of the base's {counts['base']} weights: {counts['lora'] / counts['base']:.2%}")
    print(f"  of its own: {' and '.join(own) or 'no generator'}, {counts['generators']} weights")
    for context, targets in card.targets.items():
        print(f"  context {context}: {', '.join(targets)}")
    for source, scores in card.scores.items():
        shown = ", ".join(f"{name} {'-' if dice is None else format(dice, '.3f')}" for name, dice in scores.items())
        print(f"  Dice in its validation, {source}: {shown}")
    return 0


def _summarise(card: "Card") -> dict[str, Any]:
    names = ("name", "base", "checksum", "adapter", "targets", "parameters", "scores", "sha256")
    return {name: getattr(card, name) for name in names}


def _open(args: argparse.Namespace) -> "AdaptedModel":
    from duplus_nnunet.adaptation.export import find_fold, open_adapted
    from duplus_nnunet.errors import ModelError
    from duplus_nnunet.reporting.folds import list_trained_folds
    from duplus_nnunet.trainers.checkpoint import read_checkpoint

    folder, fold = find_fold(Path(args.model).resolve())
    fold = args.f or fold
    if fold is None:
        there = list_trained_folds(folder, args.chk)
        if len(there) != 1:
            raise ModelError(f"{folder} has {len(there)} folds with {args.chk} ({', '.join(there)}). Name one with -f.")
        fold = there[0]
    return open_adapted(folder, fold, read_checkpoint(folder / f"fold_{fold}" / args.chk))


def _export(args: argparse.Namespace) -> int:
    from duplus_nnunet.adaptation.export import export_adapter, read_scores

    model = _open(args)
    scores = read_scores(model.folder / f"fold_{model.fold}")
    card = export_adapter(Path(args.o), model.trained, scores)
    print(f"adapter {card.name} written to {args.o}; its base is {card.base}")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from duplus_nnunet.adaptation.export import merge_model

    file = merge_model(_open(args), Path(args.o))
    print(f"{file} written: a plain model of the adapter's targets, for -tr DuPLUSTrainer")
    return 0
