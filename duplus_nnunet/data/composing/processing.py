"""Checks and writes all cases of a planned dataset in parallel, and builds its table of cases."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from duplus_nnunet.data.case_table import FILE_NAME, Case, CaseTable, Source
from duplus_nnunet.data.composing.labels import LabelJob, LabelSummary, process_case
from duplus_nnunet.data.composing.plan import Plan, PlannedCase
from duplus_nnunet.errors import DataError

_VARIABLE = "nnUNet_def_n_proc"
_DEFAULT = 8  # nnU-Net's
# A worker takes about a second to start, in which several cases can be processed.
_CASES_A_PROCESS = 8


def process_cases(jobs: Sequence[LabelJob]) -> Iterator[LabelSummary]:
    """Process all cases, in as many processes as nnU-Net would use; yield a summary of each, in order.

    Args:
        jobs: One job for each case.

    Raises:
        DataError: A case cannot be used; the remaining ones are cancelled.
    """
    processes = min(count_processes(), len(jobs) // _CASES_A_PROCESS)
    return map(process_case, jobs) if processes < 2 else _run_parallel(jobs, processes)


def count_processes() -> int:
    """Read the number of processes that nnU-Net uses.

    Raises:
        DataError: The environment variable is not a number of 1 or more.
    """
    text = os.environ.get(_VARIABLE, str(_DEFAULT))
    if not text.isdigit() or int(text) < 1:
        raise DataError(f"{_VARIABLE} is {text!r}; expected a number of processes, 1 or more.")
    return int(text)


def build_case_table(plan: Plan, summaries: Mapping[str, LabelSummary]) -> CaseTable:
    """Build the table of which targets are annotated and present in each case.

    Args:
        plan: The planned dataset.
        summaries: Label values of each case, by its name.

    Raises:
        DataError: A target is annotated in no training case.
    """
    described = {name: _describe_case(plan, case, summaries[name]) for name, case in plan.cases.items()}
    cases = {name: case for name, case in described.items() if not plan.cases[name].is_test}
    tests = {name: case for name, case in described.items() if plan.cases[name].is_test}
    names = [merged.target.name for merged in plan.values.targets]
    annotated: dict[str, set[str]] = {part.name: set() for part in plan.parts}
    for case in cases.values():
        annotated[case.source].update(case.annotated)
    sources = {}
    for part in plan.parts:
        targets = tuple(name for name in names if name in annotated[part.name])
        sources[part.name] = Source(part.source.dataset, plan.keys[part.name], targets, part.channels)
    used = set[str]().union(*annotated.values())
    for merged in plan.values.targets:
        if merged.target.name not in used:
            dataset, member = next(iter(merged.members.items()))
            raise DataError(
                f"The target {merged.target.name!r} is annotated in no training case: {', '.join(merged.members)} "
                "declare it, but its value occurs in no label map. Leave it out in the specification, "
                f"`skip: {{{dataset}: [{member.label}]}}`, or correct the labels."
            )
    return CaseTable(sources, cases, tests, plan.spec.spacing)


def _describe_case(plan: Plan, case: PlannedCase, summary: LabelSummary) -> Case:
    dataset = case.part.source.dataset
    meanings = plan.values.meanings[dataset]
    known = case.part.source.known.get(case.identifier)
    labelled = {name for value in summary.values for name in meanings.get(value, ())}
    annotated = []
    for merged, member in plan.values.by_dataset[dataset] if case.files.label is not None else ():
        unknown = member.missing != "absent" or member.name in case.part.context.not_annotated
        if known is not None and member.name not in known.annotated:
            _refuse_labelled(case, member.name, merged.target.name in labelled)
            continue
        if merged.target.name in labelled or not unknown:
            annotated.append(merged.target.name)
    present = tuple(name for name in annotated if name in labelled)
    return Case(case.part.name, case.patient, tuple(annotated), present)


def _refuse_labelled(case: PlannedCase, target: str, is_labelled: bool) -> None:
    """Refuse a label map with a target that is not annotated by the table of a converted dataset."""
    if is_labelled:
        raise DataError(
            f"{case.files.label} contains {target!r}, which is not annotated in {case.identifier!r} by "
            f"{case.part.source.folder / FILE_NAME}. Correct the one or the other."
        )


def _run_parallel(jobs: Sequence[LabelJob], processes: int) -> Iterator[LabelSummary]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_ignore_interrupts)
    try:
        yield from pool.map(process_case, jobs, chunksize=1)
    except BrokenProcessPool as error:
        raise DataError(
            f"A worker process was killed, probably for lack of memory. Set {_VARIABLE} below {processes}."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent process, which cancels what has not begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
