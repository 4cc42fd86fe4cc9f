"""`duplus adapt`: plan a dataset for the weights of a trained model, and list, show, export and merge adapters."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duplus_nnunet.adaptation.export import AdaptedModel
    from duplus_nnunet.adaptation.files import Card
    from duplus_nnunet.adaptation.planning_base import PlanningBase

_EPILOG = """\
example: adapt a trained model to a new dataset; its predictions of its own targets stay identical
  duplus adapt plan 62 --from-model BASE
  nnUNetv2_train 62 3d_fullres 0 -tr DuPLUSLoRATrainer -p DuPLUSPlans \\
      -pretrained_weights BASE/fold_0/checkpoint_final.pth
  duplus adapt list
  nnUNetv2_predict -i IN -o OUT -d 62 -c 3d_fullres -f 0 -tr DuPLUSLoRATrainer -p DuPLUSPlans --context sarcoma_pet
  duplus adapt export MODEL -f 0 -o ADAPTER
  nnUNetv2_predict_from_modelfolder -i IN -o OUT -m BASE -f 0 --adapters ADAPTER OTHER_ADAPTER --context sarcoma_pet
  duplus adapt merge MODEL -f 0 -o MERGED

example: start from the weights of a published model of stock nnU-Net; all weights are trained
  duplus adapt plan 62 --from-model Dataset291_.../nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres
  nnUNetv2_train 62 3d_fullres 0 -tr DuPLUSTrainer -p DuPLUSPretrainedPlans \\
      -pretrained_weights .../fold_0/checkpoint_final.pth
"""
_VARIABLE = "nnUNet_results"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "adapt",
        help="adapt a trained model to a new dataset; list, show, export and merge adapters",
        description="Adapt a trained model, the base, to a new dataset by LoRA. The base's predictions of its own "
        "targets do not change; the adapter is a small separate file. `plan` also takes a model of stock nnU-Net, from "
        "whose weights a training of DuPLUSTrainer then starts.",
        epilog=_EPILOG,
        formatter_class=raw,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    plan = actions.add_parser(
        "plan", help="plan and preprocess a dataset for a base, or for a stock model's weights", formatter_class=raw
    )
    plan.add_argument("dataset", metavar="DATASET", help="number of the dataset")
    plan.add_argument(
        "--from-model", metavar="FOLDER", required=True, help="folder of a DuPLUS or a stock nnU-Net model"
    )
    plan.add_argument("-pl", metavar="PLANNER", default="DuPLUSPlanner", help="default: %(default)s")
    plan.add_argument("-c", metavar="NAME", nargs="+", help="default: 3d_fullres, or what a stock model was trained in")
    plan.add_argument(
        "--plans-name",
        metavar="NAME",
        help="name of the new plans; default: the planner's, such as DuPLUSPlans, or, for a stock model, "
        "DuPLUSPretrainedPlans. Plans of that name that were not made for this model are never overwritten",
    )
    plan.add_argument("-np", metavar="N", default=None, help="number of preprocessing processes; default: nnU-Net's")
    list_parser = actions.add_parser("list", help="list the adapters in a folder", formatter_class=raw)
    list_parser.add_argument("folder", nargs="?", metavar="FOLDER", help="default: nnUNet_results")
    list_parser.add_argument("--json", action="store_true", help="print JSON")
    show = actions.add_parser("show", help="show the base, size, targets and scores of an adapter", formatter_class=raw)
    show.add_argument("adapter", metavar="ADAPTER", help="folder with adapter.safetensors")
    show.add_argument("--json", action="store_true", help="print JSON")
    export = actions.add_parser("export", help="write the adapter of a trained model to a folder", formatter_class=raw)
    merge = actions.add_parser(
        "merge", help="merge an adapter into its base and write a plain model", formatter_class=raw
    )
    for subparser in (export, merge):
        subparser.add_argument("model", metavar="MODEL", help="model folder of DuPLUSLoRATrainer, or a fold in it")
        subparser.add_argument("-f", metavar="FOLD", default=None, help="default: the only trained fold")
        subparser.add_argument("-chk", metavar="NAME", default="checkpoint_final.pth", help="default: %(default)s")
        subparser.add_argument("-o", metavar="FOLDER", required=True, help="folder to write to")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run an action."""
    actions = {"plan": _plan, "list": _list, "show": _show, "export": _export, "merge": _merge}
    return actions[args.action](args)


def _plan(args: argparse.Namespace) -> int:
    """Run nnU-Net's command for planning and preprocessing."""
    from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as host

    base = _keep_plans(args)
    configurations = args.c or [base.configuration]
    words = ["-d", args.dataset, "-pl", args.pl, "-c", *configurations, "--from-model", args.from_model]
    words += ["-overwrite_plans_name", args.plans_name] if args.plans_name else []
    before = sys.argv
    sys.argv = ["duplus adapt plan", *words, *(["-np", args.np] if args.np else [])]
    try:
        host.plan_and_preprocess_entry()
    finally:
        sys.argv = before
    return 0


def _keep_plans(args: argparse.Namespace) -> "PlanningBase":
    """Refuse to overwrite other plans before anything is planned; an unknown dataset is reported by the planning.

    Returns:
        The model to plan for.
    """
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from duplus_nnunet.adaptation.planning_base import keep_plans
    from duplus_nnunet.planners.planner import name_plans
    from duplus_nnunet.planners.stock_base import read_planning_base

    base = read_planning_base(args.from_model)
    name = args.plans_name or name_plans(args.pl, base)
    try:
        dataset = maybe_convert_to_dataset_name(int(args.dataset))
    except (RuntimeError, ValueError):
        return base
    if name is not None:
        keep_plans(dataset, name, base)
    return base


def _list(args: argparse.Namespace) -> int:
    from duplus_nnunet.adaptation.files import CARD, WEIGHTS, read_card
    from duplus_nnunet.errors import DataError, DuplusError

    root = args.folder or os.environ.get(_VARIABLE)
    if not root:
        raise DataError(f"No folder is given, and {_VARIABLE} is not set. Name a folder with adapters.")
    if not Path(root).is_dir():
        raise DataError(f"The folder {root} does not exist. Name a folder with adapters.")
    rows = []
    for file in sorted(Path(root).rglob(CARD)):
        try:
            rows.append((file.parent, read_card(file), (file.parent / WEIGHTS).stat().st_size))
        except (DuplusError, OSError) as error:
            print(f"warning: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps([{"folder": str(folder), **_summarise(card), "bytes": size} for folder, card, size in rows]))
        return 0
    for folder, card, size in rows:
        targets = sorted({name for of_context in card.targets.values() for name in of_context})
        print(f"{folder}\n  {card.name}: {', '.join(targets)}; base {card.base}; {size / 1e6:.1f} MB")
    if not rows:
        print(f"no adapters in {root}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from duplus_nnunet.adaptation.files import read_adapter

    card = read_adapter(args.adapter).card
    if args.json:
        print(json.dumps(_summarise(card), indent=1))
        return 0
    spec, counts = card.spec, card.parameters
    print(f"adapter {card.name}")
    print(f"  base: {card.base} (weights {card.checksum[:16]}...)")
    own = [name for name, trained in (("MLP_FiLM", spec.film), ("MLP_Pred and projections", spec.head)) if trained]
    print(
        f"  LoRA: rank {spec.r}, alpha {spec.lora_alpha:g}, {len(spec.layers)} convolutions, {counts['lora']} weights"
    )
    print(f"  LoRA weights relative to the {counts['base']} of the base: {counts['lora'] / counts['base']:.2%}")
    print(f"  own generators: {' and '.join(own) or 'none'}, {counts['generators']} weights")
    for context, targets in card.targets.items():
        print(f"  context {context}: {', '.join(targets)}")
    for source, scores in card.scores.items():
        shown = ", ".join(f"{name} {'-' if dice is None else format(dice, '.3f')}" for name, dice in scores.items())
        print(f"  validation Dice, {source}: {shown}")
    return 0


def _summarise(card: "Card") -> dict[str, Any]:
    names = ("name", "base", "checksum", "adapter", "targets", "parameters", "scores", "sha256")
    return {name: getattr(card, name) for name in names}


def _open(args: argparse.Namespace) -> "AdaptedModel":
    from duplus_nnunet.adaptation.export import find_fold, open_adapted
    from duplus_nnunet.checkpoint_files import read_checkpoint
    from duplus_nnunet.errors import ModelError
    from duplus_nnunet.reporting.folds import list_trained_folds

    folder, fold = find_fold(Path(args.model).resolve())
    fold = args.f or fold
    if fold is None:
        trained = list_trained_folds(folder, args.chk)
        if len(trained) != 1:
            listed = ", ".join(trained) or "none"
            raise ModelError(f"{folder} has {len(trained)} folds with {args.chk} ({listed}). Name one with -f.")
        fold = trained[0]
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
    print(f"{file} written: a plain model for the targets of the adapter; use it with -tr DuPLUSTrainer")
    return 0
