"""`duplus compose`: make one nnU-Net raw dataset out of several."""

import argparse
from pathlib import Path

from duplus_nnunet.commands.interrupts import end_like_interrupt

_DESCRIPTION = """\
Puts raw datasets together into one: images are linked, label maps are rewritten to the targets of all, and every case
keeps its source, its context and what is annotated in it. Targets of the same name or synonym become one; the prompt
registry, or a prompts.yaml beside a source's dataset.json, says what each label means.
"""
_EXAMPLE = """\
examples:
  duplus compose -o 501 -n Universal 4 50 --dry-run      shows what would be written
  duplus compose -o 501 -n Universal 4 50 60 61 62 --spec compose.yaml

keys of a specification, each of which may be left out (sources go by number or name):
  patients: {shared: [[60, 61, 62]]}             equal case names there are the same people; false: they never are
  patients: {patterns: {50: '(pt_[0-9]+)'}}      the part of a case name that names the patient
  targets: {60: {tumor: sarcoma}}                another name for a label; the same name twice unites
  skip: {50: [Larynx]}                           labels to leave out
  contexts: {219: {'_ct_': amos_ct, '_mr_': amos_mr}}    a context a pattern of case names, or one for all
  split_channels: true                           each channel becomes a source of its own; or [HECKTOR]
  names: {60: Sarcoma}                           how cases of a source are called
  spacing: shared                                one target spacing, not one a context
  folds: 5, seed: 12345, splits: my_splits.json  the folds, or a file with your own
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the parser of `duplus`."""
    parser = subparsers.add_parser(
        "compose",
        help="make one dataset out of several raw ones",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="raw dataset: its number or name in nnUNet_raw, or its folder")
    add("-o", "--output", type=int, required=True, metavar="NUMBER", help="number of the composed dataset, such as 501")
    add("-n", "--name", required=True, help="its name, such as Universal")
    add("--spec", type=Path, metavar="FILE", help="YAML file with what you want otherwise than by default, see below")
    add("--dry-run", action="store_true", help="read and check everything, show the table, write nothing")
    add("--overwrite", action="store_true", help="replace an earlier composition of this number and name")
    parser.set_defaults(run=run)


@end_like_interrupt()
def run(args: argparse.Namespace) -> int:
    """Compose a dataset, or show what would be composed."""
    from tqdm import tqdm

    from duplus_nnunet.commands.compose_text import describe_dataset, describe_files, describe_next_steps
    from duplus_nnunet.data.composing.look import tabulate
    from duplus_nnunet.data.composing.place import find_place, is_up_to_date
    from duplus_nnunet.data.composing.plan import make_plan
    from duplus_nnunet.data.composing.spec import read_spec
    from duplus_nnunet.data.composing.write import EDITED_PROMPTS, build_dataset_json, look, write_dataset
    from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json

    folder = find_place(args.output, args.name)
    spec_folder = args.spec.parent if args.spec else Path()
    plan = make_plan(folder.name, args.sources, read_spec(args.spec), spec_folder)
    if is_up_to_date(plan, folder, args.overwrite):
        print(f"{folder} is up to date: neither the sources nor the specification have changed. Nothing was written.")
        return 0
    with tqdm(total=len(plan.cases), desc="reading" if args.dry_run else "composing", unit="case", disable=None) as bar:
        if args.dry_run:
            found = look(plan, None, bar.update)
            table, dataset_json = tabulate(plan, found), build_dataset_json(plan, found)
        else:
            table = write_dataset(plan, folder, bar.update)
            dataset_json = read_dataset_json(folder / "dataset.json")
    lines = list(describe_dataset(plan, table, dataset_json))
    lines += ["", f"{'Would write' if args.dry_run else 'Wrote'} {folder}:"]
    lines += [f"  {line}" for line in describe_files(plan, table)]
    if args.dry_run:
        lines.append("Nothing was written.")
    else:
        lines += describe_next_steps(plan, (folder / EDITED_PROMPTS).exists())
    print("\n".join(lines))
    return 0
