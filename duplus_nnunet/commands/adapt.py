"""`duplus adapt`: plan a dataset for the weights of a trained model, and list, show, export and merge adapters."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.command_map import CommandMap, Group

if TYPE_CHECKING:
    from duplus_nnunet.adaptation.export import AdaptedModel
    from duplus_nnunet.adaptation.files import Card
    from duplus_nnunet.adaptation.planning_base import PlanningBase

GROUPS = (
    Group("Plan", {"plan": "plan and preprocess a dataset for the weights of a trained model"}),
    Group(
        "Train: nnU-Net's own command; `duplus adapt plan` ends with the line to type",
        host={"nnUNetv2_train ... -tr DuPLUSLoRATrainer -pretrained_weights ...": "train an adapter of a DuPLUS model"},
    ),
    Group(
        "Adapters",
        {
            "list": "list the adapters in a folder",
            "show": "show the base, size, targets and scores of an adapter",
            "export": "write the adapter of a trained model to a folder",
            "merge": "merge an adapter into its base, and write a plain model",
        },
    ),
)
_EPILOG = """\
example: adapt a model to dataset 62; its predictions of its own targets stay identical
  BASE=nnUNet_results/Dataset501_Universal/DuPLUSTrainer__DuPLUSPlans__3d_fullres
  duplus adapt plan 62 --from-model $BASE
  nnUNetv2_train 62 3d_fullres 0 -tr DuPLUSLoRATrainer -p DuPLUSPlans \\
      -pretrained_weights $BASE/fold_0/checkpoint_final.pth
  duplus adapt list
  duplus predict -d 62 -c 3d_fullres -f 0 -tr DuPLUSLoRATrainer -p DuPLUSPlans \\
      -i nnUNet_raw/Dataset062_Sarcoma/imagesTs -o predicted --context sarcoma_pet
  duplus adapt export nnUNet_results/Dataset062_Sarcoma/DuPLUSLoRATrainer__DuPLUSPlans__3d_fullres \\
      -f 0 -o adapters/sarcoma
  duplus predict -m $BASE -f 0 --adapters adapters/sarcoma adapters/thymus \\
      -i nnUNet_raw/Dataset062_Sarcoma/imagesTs -o predicted --context sarcoma_pet

A training that starts from a model of stock nnU-Net trains all weights: `duplus adapt plan --help`.
"""
_PLAN_EXAMPLE = """\
  duplus adapt plan 62 --from-model nnUNet_results/Dataset501_Universal/DuPLUSTrainer__DuPLUSPlans__3d_fullres

example with a model of stock nnU-Net: its training is that of DuPLUSTrainer with the plans DuPLUSPretrainedPlans
  duplus adapt plan 62 --from-model nnUNet_results/Dataset017_BTCV/nnUNetTrainer__nnUNetPlans__3d_fullres
"""
_LIST_EXAMPLE = """\
  duplus adapt list
  duplus adapt list adapters --json
"""
_TRAINED = "nnUNet_results/Dataset062_Sarcoma/DuPLUSLoRATrainer__DuPLUSPlans__3d_fullres"
_VARIABLE = "nnUNet_results"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = subparsers.add_parser(
        "adapt",
        description="Adapt a trained model, the base, to a new dataset by LoRA. The base's predictions of its own "
        "targets do not\nchange; the adapter is a small separate file. `plan` also takes a model of stock nnU-Net: "
        "a training of DuPLUSTrainer\nthen starts from its weights.",
        epilog=_EPILOG,
    )
    commands = CommandMap(parser, GROUPS)
    _add_plan(commands)
    listed = commands.add("list", _LIST_EXAMPLE)
    listed.add_argument("folder", nargs="?", metavar="FOLDER", help="default: nnUNet_results")
    listed.add_argument("--json", action="store_true", help="print JSON")
    show = commands.add("show", "  duplus adapt show adapters/sarcoma")
    show.add_argument("adapter", metavar="ADAPTER", help="folder with adapter.safetensors")
    show.add_argument("--json", action="store_true", help="print JSON")
    for name, example in (
        ("export", f"  duplus adapt export {_TRAINED} \\\n      -f 0 -o adapters/sarcoma"),
        ("merge", f"  duplus adapt merge {_TRAINED} \\\n      -f 0 -o merged/sarcoma"),
    ):
        added = commands.add(name, example)
        added.add_argument("model", metavar="MODEL", help="model folder of DuPLUSLoRATrainer, or a fold in it")
        added.add_argument("-f", metavar="FOLD", default=None, help="default: the only trained fold")
        added.add_argument("-chk", metavar="NAME", default="checkpoint_final.pth", help="default: %(default)s")
        added.add_argument("-o", metavar="FOLDER", required=True, help="folder to write to")
    actions = {"plan": _plan, "list": _list, "show": _show, "export": _export, "merge": _merge}
    for name, run in actions.items():
        commands.subparsers.choices[name].set_defaults(run=run)


def _add_plan(commands: CommandMap) -> None:
    plan = commands.add("plan", _PLAN_EXAMPLE)
    plan.add_argument("dataset", metavar="DATASET", help="number of the dataset")
    plan.add_argument(
        "--from-model", metavar="FOLDER", required=True, help="folder of a DuPLUS or a stock nnU-Net model"
    )
    plan.add_argument("-pl", metavar="PLANNER", default="DuPLUSPlanner", help="default: %(default)s")
    plan.add_argument("-c", metavar="NAME", nargs="+", help="default: the one that the model was trained in")
    plan.add_argument(
        "--plans-name",
        metavar="NAME",
        help="name of the new plans; default: the planner's, such as DuPLUSPlans, or, for a stock model, "
        "DuPLUSPretrainedPlans. Plans of that name that were not made for this model are never overwritten",
    )
    plan.add_argument("-np", metavar="N", default=None, help="number of preprocessing processes; default: nnU-Net's")


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
