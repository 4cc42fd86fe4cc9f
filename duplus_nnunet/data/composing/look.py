"""All cases of a planned dataset, in parallel: jobs go in, what each case holds and a table of cases come out."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.data.composing.labels import LabelJob, LabelSummary, carry_out
from duplus_nnunet.data.composing.plan import Plan, PlannedCase
from duplus_nnunet.errors import DataError

_VARIABLE = "nnUNet_def_n_proc"
_DEFAULT = 8  # nnU-Net's
# A worker starts in about a second, in which several cases are done.
_CASES_A_PROCESS = 8


def carry_out_all(jobs: Sequence[LabelJob], update: Callable[[], object]) -> list[LabelSummary]:
    """Carry out all jobs, in as many processes as nnU-Net would take.

    Args:
        jobs: What is to be done.
        update: Called after each job.

    Raises:
        DataError: One of them fails; the others are given up.
    """
    processes = min(count_processes(), len(jobs) // _CASES_A_PROCESS)
    found = []
    for one in map(carry_out, jobs) if processes < 2 else _run_parallel(jobs, processes):
        found.append(one)
        update()
    return found


def count_processes() -> int:
    """Read how many processes nnU-Net is to use.

    Raises:
        DataError: The variable is no number.
    """
    text = os.environ.get(_VARIABLE, str(_DEFAULT))
    if not text.isdigit() or int(text) < 1:
        raise DataError(f"{_VARIABLE} is {text!r}; expected a number of processes, 1 or more.")
    return int(text)


def tabulate(plan: Plan, found: Mapping[str, LabelSummary]) -> CaseTable:
    """Put down what is annotated and present in each case.

    Args:
        plan: The dataset.
        found: What each case holds, by its name.

    Raises:
        DataError: A target is annotated in no training case.
    """
    described = {name: _describe_case(plan, case, found[name]) for name, case in plan.cases.items()}
    cases = {name: case for name, case in described.items() if not plan.cases[name].is_test}
    tests = {name: case for name, case in described.items() if plan.cases[name].is_test}
    names = [one.target.name for one in plan.values.targets]
    sources = {}
    for part in plan.parts:
        annotated = {name for case in cases.values() if case.source == part.name for name in case.annotated}
        targets = tuple(name for name in names if name in annotated)
        sources[part.name] = Source(part.origin.dataset, plan.keys[part.name], targets, part.channels)
    for one in plan.values.targets:
        if not any(one.target.name in source.targets for source in sources.values()):
            dataset, member = next(iter(one.members.items()))
            raise DataError(
                f"The target {one.target.name!r} is annotated in no training case: {', '.join(one.members)} declare "
                "it, but no label map has its value. Leave it out in the specification, "
                f"`skip: {{{dataset}: [{member.label}]}}`, or mend the labels."
            )
    return CaseTable(sources, cases, tests, plan.spec.spacing)


def _describe_case(plan: Plan, case: PlannedCase, found: LabelSummary) -> Case:
    dataset = case.part.origin.dataset
    meanings = plan.values.meanings[dataset]
    held = {name for value in found.values for name in meanings.get(value, ())}
    annotated = []
    for one in plan.values.targets if case.files.label is not None else ():
        member = one.members.get(dataset)
        if member is not None and (member.missing == "absent" or one.target.name in held):
            annotated.append(one.target.name)
    present = tuple(name for name in annotated if name in held)
    return Case(case.part.name, case.patient, tuple(annotated), present)


def _run_parallel(jobs: Sequence[LabelJob], processes: int) -> Iterator[LabelSummary]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_ignore_interrupts)
    try:
        yield from pool.map(carry_out, jobs, chunksize=1)
    except BrokenProcessPool as error:
        raise DataError(
            f"A worker process was ended from outside, probably for want of memory. Set {_VARIABLE} below {processes}."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which gives up what has not begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
