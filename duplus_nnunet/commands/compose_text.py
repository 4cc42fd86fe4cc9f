"""A composed dataset in words: a plan and its table of cases go in, lines of text come out."""

from collections.abc import Iterator, Sequence

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.data.composing.plan import Plan
from duplus_nnunet.data.composing.write import EDITED_PROMPTS
from duplus_nnunet.prompt_registry.drafting import DRAFTED
from duplus_nnunet.text_table import format_table


def describe_dataset(plan: Plan, table: CaseTable, dataset_json: dict[str, object]) -> Iterator[str]:
    """Describe sources, contexts and patients; then each target, with the cases that have it annotated and present."""
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
    yield f"spacing: {'one a context' if table.spacing == 'context' else 'shared by all contexts'}"
    yield f"channels: {', '.join(plan.channel_names.values())}"
    if "overwrite_image_reader_writer" in dataset_json:
        yield f"reader: {dataset_json['overwrite_image_reader_writer']}, so that left and right are the same everywhere"
    if plan.values.class_order is not None:
        yield "targets overlap: written as regions, wider ones first (regions_class_order)"


def describe_files(plan: Plan, table: CaseTable) -> Iterator[str]:
    """List what is written, or would be."""
    images = len(plan.channel_names)
    yield f"imagesTr, labelsTr: {len(table.cases) * images} images linked, {len(table.cases)} label maps"
    if table.tests:
        labelled = sum(plan.cases[name].files.label is not None for name in table.tests)
        yield f"imagesTs, labelsTs: {len(table.tests) * images} images linked, {labelled} label maps"
    yield "dataset.json, prompts.yaml, duplus_cases.json, splits_final.json, duplus_compose.json"


def describe_next_steps(plan: Plan, edited: bool) -> Iterator[str]:
    """Say what to do with a dataset that was written."""
    number = plan.dataset[len("Dataset") :].partition("_")[0]
    if edited:
        yield f"Your edited prompts.yaml was kept as {EDITED_PROMPTS}: take over what you still want."
    yield f"Then run: duplus prompts check {int(number)}"
    yield f"          nnUNetv2_plan_and_preprocess -d {int(number)} -pl DuPLUSPlanner -c 3d_fullres"


def _list_sources(plan: Plan, table: CaseTable) -> Iterator[Sequence[str]]:
    yield "source", "dataset", "context", "channels", "cases", "patients", "tests"
    for name, source in table.sources.items():
        cases = table.of_source(name)
        tests = [case for case in table.tests.values() if case.source == name]
        patients = {case.patient for case in cases.values()}
        counts = (len(cases), len(patients), len(tests))
        yield name, source.dataset, source.context, ", ".join(source.channels), *map(str, counts)


def _list_targets(plan: Plan, table: CaseTable) -> Iterator[Sequence[str]]:
    yield "target", "value", *table.sources
    for one in plan.values.targets:
        name = one.target.name
        value = plan.values.labels[name]
        counts = []
        for part in plan.parts:
            cases = table.of_source(part.name).values()
            annotated = sum(name in case.annotated for case in cases)
            present = sum(name in case.present for case in cases)
            counts.append(f"{annotated}/{present}" if part.origin.dataset in one.members else "-")
        yield name, ",".join(map(str, value)) if isinstance(value, list) else str(value), *counts


def _list_notes(plan: Plan, table: CaseTable) -> Iterator[str]:
    for origin in plan.origins:
        if origin.entry.origin.startswith(DRAFTED):
            yield f"note: the prompts of {origin.dataset} are only {DRAFTED} its dataset.json: review them"
    for name in table.sources:
        without = [
            str(fold)
            for fold, cases in enumerate(plan.splits)
            if not any(name == table.cases[one].source for one in cases["val"])
        ]
        if without:
            yield f"note: no validation case of {name} in fold {', '.join(without)}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
