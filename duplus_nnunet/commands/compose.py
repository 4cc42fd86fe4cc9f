"""`duplus compose`: combine several raw datasets of nnU-Net into one."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from duplus_nnunet.commands.interrupts import end_like_interrupt
from duplus_nnunet.text_table import format_table

if TYPE_CHECKING:
    from duplus_nnunet.data.case_table import CaseTable
    from duplus_nnunet.data.composing.plan import Plan

_DESCRIPTION = """\
Combine several raw datasets into one. Images are linked, label maps are rewritten to the targets of all sources, and
every case keeps its source, its context and the list of targets annotated in it. Targets with the same name or synonym
are merged; the prompt registry, or a prompts.yaml beside the dataset.json of a source, defines what each label means.
If it is interrupted, the same command goes on from the cases that are done.
"""
_EXAMPLE = """\
examples:
  duplus compose -o 501 -n Universal 4 50 --dry-run      show what would be written
  duplus compose -o 501 -n Universal 4 50 60 61 62 --spec compose.yaml
  duplus compose -o 600 -n Paper --spec paper            the datasets of the paper, found by name
  duplus compose -o 600 -n Paper --spec paper --available    those of them that are there

optional keys of a specification (sources are named by number or name):
  patients: {shared: [[60, 61, 62]]}             equal case names in these sources mean the same patient; false: never
  patients: {patterns: {50: '(pt_[0-9]+)'}}      the part of a case name that identifies the patient
  targets: {60: {tumor: sarcoma}}                another name for a label; targets with equal names are merged
  skip: {50: [Larynx]}                           labels to leave out
  contexts: {219: {'_ct_': amos_ct, '_mr_': amos_mr}}    one context for each pattern of case names, or one for all
  split_channels: true                           each channel becomes a source of its own; or [HECKTOR]
  channels: {HECKTOR: [PET]}                     which channels of such a source are used
  sources: [BTCV, LiTS]                          the sources, where none is named on the command line
  names: {60: Sarcoma}                           name of a source in the case names
  spacing: shared                                one target spacing for all contexts instead of one for each
  folds: 5, seed: 12345, splits: my_splits.json  the folds, or a file with your own
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the parser of `duplus`."""
    parser = subparsers.add_parser(
        "compose",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="raw dataset: its number or name in nnUNet_raw, or its folder")
    add("--list-specs", action=_ListSpecs, nargs=0, help="show the specifications that come with the package, and exit")
    add("-o", "--output", type=int, required=True, metavar="NUMBER", help="number of the composed dataset, such as 501")
    add("-n", "--name", required=True, help="name of the composed dataset, such as Universal")
    add("--spec", metavar="FILE", help="YAML file that changes the defaults, see below; or a name, such as paper")
    add("--available", action="store_true", help="go on without the sources of the specification that are not there")
    add("--dry-run", action="store_true", help="read and check everything and show the tables, but write nothing")
    add("--overwrite", action="store_true", help="replace an earlier composed dataset of this number and name")
    parser.set_defaults(run=run)


class _ListSpecs(argparse.Action):
    """Shows the shipped specifications, and ends like --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from duplus_nnunet.data.composing.shipped_specs import list_specs
        from duplus_nnunet.data.composing.spec import read_spec

        for name, file in list_specs().items():
            print(f"{name}: {', '.join(read_spec(file).sources)}")
            print(f"    {file}")
        parser.exit()


@end_like_interrupt()
def run(args: argparse.Namespace) -> int:
    """Compose a dataset, or show the dataset that would be written."""
    from duplus_nnunet.data.composing.plan import make_plan
    from duplus_nnunet.data.composing.processing import build_case_table
    from duplus_nnunet.data.composing.record import find_output_folder, is_up_to_date
    from duplus_nnunet.data.composing.shipped_specs import choose_sources, find_spec
    from duplus_nnunet.data.composing.spec import read_spec
    from duplus_nnunet.data.composing.write import EDITED_PROMPTS, build_dataset_json, examine_cases, write_dataset
    from duplus_nnunet.progress import follow
    from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json

    folder = find_output_folder(args.output, args.name)
    file = find_spec(args.spec) if args.spec else None
    chosen = choose_sources(read_spec(file), args.sources, args.available)
    plan = make_plan(folder.name, chosen.sources, chosen.spec, file.parent if file else Path())
    if is_up_to_date(plan, folder, args.overwrite):
        print(f"{folder} is up to date: neither the sources nor the specification have changed. Nothing was written.")
        return 0
    with follow(len(plan.cases), "reading" if args.dry_run else "composing", "case") as count:
        if args.dry_run:
            summaries = examine_cases(plan, None, count)
            table, dataset_json = build_case_table(plan, summaries), build_dataset_json(plan, summaries)
        else:
            table = write_dataset(plan, folder, count)
            dataset_json = read_dataset_json(folder / "dataset.json")
    lines = [f"note: without {name}, which is not in nnUNet_raw" for name in chosen.missing]
    lines += _describe_dataset(plan, table, dataset_json)
    lines += ["", f"{'Would write' if args.dry_run else 'Wrote'} {folder}:"]
    lines += [f"  {line}" for line in _describe_files(plan, table)]
    if args.dry_run:
        lines.append("Nothing was written.")
    else:
        lines += _describe_next_steps(plan, (folder / EDITED_PROMPTS).exists())
    print("\n".join(lines))
    return 0


def _describe_dataset(plan: "Plan", table: "CaseTable", dataset_json: dict[str, object]) -> Iterator[str]:
    """Describe sources, targets with the number of cases in which they are annotated and present, and patients."""
    yield f"{plan.dataset}: {_count(len(table.cases), 'training case')}, {_count(len(table.tests), 'test case')}"
    yield ""
    yield from format_table(_list_sources(plan, table), align="<<<<>>>")
    yield ""
    yield from format_table(_list_targets(plan, table), align="<".ljust(len(table.sources) + 2, ">"))
    yield "(training cases in which the target is annotated / present; -: the source does not have it)"
    yield ""
    patients = {case.patient for case in table.cases.values()}
    sizes = ", ".join(f"{len(fold['train'])}/{len(fold['val'])}" for fold in plan.splits)
    tested = {case.patient for case in table.tests.values()}
    yield f"patients: {len(patients)} in training, {len(tested)} in test images"
    yield f"folds: {len(plan.splits)} by patient, training/validation cases {sizes}"
    yield from _list_notes(plan, table)
    yield f"spacing: {'one for each context' if table.spacing == 'context' else 'shared by all contexts'}"
    yield f"channels: {', '.join(plan.channel_names.values())}"
    if "overwrite_image_reader_writer" in dataset_json:
        yield f"reader: {dataset_json['overwrite_image_reader_writer']}, so that all images have the same orientation"
    if plan.values.class_order is not None:
        yield "some targets overlap: they are stored as regions, wider ones first (regions_class_order)"


def _describe_files(plan: "Plan", table: "CaseTable") -> Iterator[str]:
    """List the files of a dataset."""
    images = len(plan.channel_names)
    yield f"imagesTr, labelsTr: {len(table.cases) * images} images linked, {len(table.cases)} label maps"
    if table.tests:
        labelled = sum(plan.cases[name].files.label is not None for name in table.tests)
        yield f"imagesTs, labelsTs: {len(table.tests) * images} images linked, {labelled} label maps"
    yield "dataset.json, prompts.yaml, duplus_cases.json, splits_final.json, duplus_compose.json"


def _describe_next_steps(plan: "Plan", edited: bool) -> Iterator[str]:
    """Yield what to do with a dataset that was written."""
    from duplus_nnunet.data.composing.write import EDITED_PROMPTS

    number = plan.dataset[len("Dataset") :].partition("_")[0]
    if edited:
        yield f"Your edited prompts.yaml was kept as {EDITED_PROMPTS}: copy from it what you still need."
    yield f"Then run: duplus prompts check {int(number)}"
    yield f"          nnUNetv2_plan_and_preprocess -d {int(number)} -pl DuPLUSPlanner -c 3d_fullres"


def _list_sources(plan: "Plan", table: "CaseTable") -> Iterator[Sequence[str]]:
    yield "source", "dataset", "context", "channels", "cases", "patients", "tests"
    for name, source in table.sources.items():
        cases = table.of_source(name)
        tests = [case for case in table.tests.values() if case.source == name]
        patients = {case.patient for case in cases.values()}
        counts = (len(cases), len(patients), len(tests))
        yield name, source.dataset, source.context, ", ".join(source.channels), *map(str, counts)


def _list_targets(plan: "Plan", table: "CaseTable") -> Iterator[Sequence[str]]:
    yield "target", "value", *table.sources
    annotated, present = _count_targets(table)
    for merged in plan.values.targets:
        name = merged.target.name
        value = plan.values.labels[name]
        counts = []
        for part in plan.parts:
            counted = f"{annotated[part.name, name]}/{present[part.name, name]}"
            counts.append(counted if part.source.dataset in merged.members else "-")
        yield name, ",".join(map(str, value)) if isinstance(value, list) else str(value), *counts


def _count_targets(table: "CaseTable") -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Count the training cases in which each target of each source is annotated, and in which it is present."""
    annotated, present = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for case in table.cases.values():
        annotated.update((case.source, name) for name in case.annotated)
        present.update((case.source, name) for name in case.present)
    return annotated, present


def _list_notes(plan: "Plan", table: "CaseTable") -> Iterator[str]:
    from duplus_nnunet.prompt_registry.drafting import DRAFTED

    for source in plan.sources:
        if source.entry.origin.startswith(DRAFTED):
            yield f"note: the prompts of {source.dataset} were only {DRAFTED} its dataset.json: review them"
    for name in table.sources:
        without = [
            str(fold)
            for fold, cases in enumerate(plan.splits)
            if not any(name == table.cases[case].source for case in cases["val"])
        ]
        if without:
            yield f"note: no validation case of {name} in fold {', '.join(without)}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
