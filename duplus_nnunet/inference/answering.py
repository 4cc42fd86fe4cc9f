"""Predicts preprocessed cases one after another, and writes each while the network predicts the next one."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from duplus_nnunet.data.orientations import read_turn
from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.assembly import Assembly, estimate_memory, read_rule
from duplus_nnunet.inference.binding import BoundModel, Question
from duplus_nnunet.inference.cleaning import clean
from duplus_nnunet.inference.groups import Room, choose_size, measure_calls, plan_groups, split_prompts
from duplus_nnunet.inference.kept_maps import KeptMaps
from duplus_nnunet.inference.memory import read_memory
from duplus_nnunet.inference.reading import InputCase, PreparedCase, report_failure
from duplus_nnunet.inference.resampling import make_resampler
from duplus_nnunet.inference.voxels import Voxels
from duplus_nnunet.inference.window_maps import CallMaps, WindowMaps
from duplus_nnunet.networks.prompts import Prompts
from duplus_nnunet.outputs.answer import CaseAnswer, Geometry, TargetAnswer
from duplus_nnunet.outputs.naming import show_name
from duplus_nnunet.reporting.presence import compute_peak_logits

# A probability of 1 %, the least that files of probabilities keep.
LEAST_LOGIT = -4.6
# Mean share of an image that the box of a target fills; the liver's box fills a tenth of an abdomen.
_BOX_SHARE = 0.05


@dataclass(frozen=True)
class PredictedCase:
    """A case that was predicted.

    Attributes:
        item: What it was predicted from, without the image.
        answer: The label map and the targets.
        seconds: By stage.
    """

    item: PreparedCase
    answer: CaseAnswer
    seconds: dict[str, float]


@dataclass
class Failures:
    """Cases that failed, and why."""

    by_case: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, why: str) -> None:
        """Record a failed case, and report it at once."""
        self.by_case[case] = why
        sys.stderr.write(f"failed: {show_name(case)}: {why}\n")

    def raise_if_any(self, cases: int) -> None:
        """Raise an error if a case failed, once the other cases are finished.

        Raises:
            DataError: At least one case failed.
        """
        if not self.by_case:
            return
        if len(self.by_case) == cases == 1:
            raise DataError(next(iter(self.by_case.values())))
        listed = "\n".join(f"  {show_name(case)}: {why}" for case, why in self.by_case.items())
        others = ", the others are finished" if len(self.by_case) < cases else ""
        raise DataError(f"{len(self.by_case)} of {cases} cases failed{others}:\n{listed}")


class Clock:
    """Adds up the time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, call: Callable[..., Any], *args: Any) -> Any:
        """Call a function, and add its time to a stage."""
        started = time.perf_counter()
        try:
            return call(*args)
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def answer_case(
    bound: BoundModel, case: PreparedCase, floor: float = 0.0, kept: CallMaps | None = None
) -> PredictedCase:
    """Predict one preprocessed case.

    Targets are predicted in groups that fit the memory. The network runs on the image once if what it computes fits
    beside them, else once for each group. Exclusive targets are then settled against the context's other targets, where
    they were found. What is to be removed from masks is removed at the end.

    Args:
        bound: The model and what is asked of it.
        case: The case.
        floor: Logit that a voxel must exceed to be kept in a target's box, 0 or less.
        kept: What the network computed of this case before, for any targets of this context; it is used and added to.

    Raises:
        DataError: The memory is too little for a single target.
        ModelError: The network gave logits that are not finite.
    """
    model, clock, question = bound.model, Clock(), bound.question_of(case.properties)
    configuration, plans, options = bound.configure(question), model.plans, bound.options
    resampler = make_resampler(configuration, plans, case.properties, case.data.shape[1:])
    manager = plans.get_label_manager(bound.declare([question]))
    rule = read_rule(manager, len(question.reading.new), options.prompt_priority == "trained")
    assembly = Assembly(resampler, rule, bound.list_asked(question), floor)
    memory = estimate_memory(resampler, rule, configuration.patch_size, model.folds)
    share = 1.0 if floor == -math.inf else _BOX_SHARE
    room = Room(read_memory(options.memory), memory, question.prompts.count, share)
    rivals = bound.find_rivals(question)
    size, maps = choose_size(room), kept
    if kept is None:
        size, calls = plan_groups(room, question.groups, measure_calls(bound, case, question))
        maps = (
            KeptMaps(calls, uses_file=False) if calls else WindowMaps(room.left(size)) if rivals is not None else None
        )
    groups = list(split_prompts(question.groups, size))
    peaks = _add_groups(clock, bound, case, groups, (assembly, maps, kept is not None))
    if rivals is not None and maps is not None:
        free = room.left(0) - (maps.nbytes if kept is None else 0)
        _settle_rivals(clock, bound, case, (question, rivals, free), assembly, maps)
    labels, targets = clock.time("resample", assembly.finish)
    answer = CaseAnswer(
        case.source.name,
        question.context,
        bound.context_sentence(question),
        read_geometry(plans, case.properties),
        labels,
        tuple(_judge(bound, question, targets, peaks)),
        rivals=options.rivals if rule.exclusive else None,
    )
    answer = clock.time("clean", clean, answer, bound.cleaning) if bound.cleaning else answer
    return PredictedCase(replace(case, data=None), answer, {"read": case.seconds, **clock.seconds})


def _add_groups(
    clock: Clock,
    bound: BoundModel,
    case: PreparedCase,
    groups: Sequence[Prompts],
    into: tuple[Assembly, CallMaps | None, bool],
) -> list[float]:
    """Predict groups of targets one after another; returns the peak logit of each target.

    Args:
        clock: Adds up the time.
        bound: The model and what is asked of it.
        case: The case.
        groups: Prompts of the groups.
        into: Where targets are collected, what is kept of calls, and whether calls of this case were kept before.
    """
    assembly, maps, was_opened = into
    predictor, peaks = bound.model.predictor, list[float]()
    spacing = bound.configure(bound.question_of(case.properties)).spacing
    for number, group in enumerate(groups):
        again = was_opened or (number > 0 and isinstance(maps, KeptMaps))
        predict = predictor.predict_kept if again else predictor.predict_logits
        logits = clock.time("network", predict, case.data, group, maps)
        peaks += clock.time("resample", compute_peak_logits, logits, spacing)
        clock.time("resample", assembly.add, logits)
    return peaks


def _settle_rivals(
    clock: Clock,
    bound: BoundModel,
    case: PreparedCase,
    asked: tuple[Question, Prompts, int],
    assembly: Assembly,
    maps: CallMaps,
) -> None:
    """Settle the voxels of asked targets against the other targets of the context, some at a time.

    Args:
        clock: Adds up the time.
        bound: The model and what is asked of it.
        case: The case.
        asked: What is asked, the prompts of the other targets, and the bytes for their logits.
        assembly: The asked targets.
        maps: What was kept of calls.
    """
    contested = clock.time("resample", lambda: assembly.contested)
    if contested is None:
        return
    voxels, where = Voxels.of(contested), torch.from_numpy(contested)
    question, rivals, room = asked
    before = bound.count_before(question)
    # Sums of one fold or two, a copy and a mark of each voxel.
    size = min(rivals.count, max(1, room // (voxels.count * (2 * min(bound.model.folds, 2) + 3))))
    for start, group in zip(range(0, rivals.count, size), split_prompts([rivals], size), strict=True):
        logits = clock.time("rivals", bound.model.predictor.predict_rivals, case.data, group, maps, where)
        clock.time("rivals", assembly.contest, logits, voxels, before[start : start + size])


def _judge(
    bound: BoundModel, question: Question, targets: Iterable[TargetAnswer], peaks: Iterable[float]
) -> Iterator[TargetAnswer]:
    """Add to each target the probability that it is in the image."""
    # The model was calibrated on what it was trained on last, not on a base or an adapter beside it.
    calibrated, calibration = bound.model.network.default_adapter, bound.model.calibration
    owners = question.prompts.adapters or (calibrated,) * question.prompts.count
    for target, peak, owner in zip(targets, peaks, owners, strict=True):
        yield replace(target, presence=calibration.predict_presence(target.name, peak) if owner == calibrated else None)


def read_geometry(plans: PlansManager, properties: dict[str, Any]) -> Geometry:
    """Return the grid of a preprocessed case's image, axes in the reader's order."""
    before = properties["shape_before_cropping"]
    turned = [int(before[axis]) for axis in plans.transpose_backward]
    d, h, w = read_turn(properties).invert().sort(turned)
    z, y, x = (float(width) for width in properties["spacing"])
    return Geometry((d, h, w), (z, y, x), properties)


def choose_floor(bound: BoundModel, save_probabilities: bool) -> float:
    """Return the logit that a voxel must exceed to be kept: what is written of probabilities decides it."""
    if save_probabilities:
        return -math.inf
    return LEAST_LOGIT if bound.options.probabilities else 0.0


def predict_cases(
    bound: BoundModel,
    cases: Iterable[PreparedCase],
    floor: float,
    write: Callable[[PredictedCase], Any],
    fail: Callable[[InputCase, str], None],
) -> list[Any]:
    """Predict cases as they are read, and write each one while the network predicts the next.

    Args:
        bound: The model and what is asked of it.
        cases: Preprocessed cases.
        floor: As for answer_case.
        write: Called with each case, in another thread, one at a time.
        fail: Called with each case that failed, and why; it does not end the run.

    Returns:
        What `write` returned, of the cases that did not fail.
    """
    results: list[Any] = []

    def collect(source: InputCase, future: Future[Any]) -> None:
        try:
            results.append(future.result())
        except Exception as error:  # writers raise their own exceptions, and no case may end the others
            fail(source, report_failure(error))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writing") as pool:
        writing: tuple[InputCase, Future[Any]] | None = None
        for case in cases:
            try:
                predicted = answer_prepared(bound, case, floor)
            except Exception as error:  # as above
                fail(case.source, report_failure(error))
                continue
            if writing is not None:
                collect(*writing)
            writing = case.source, pool.submit(write, predicted)
        if writing is not None:
            collect(*writing)
    return results


def answer_prepared(bound: BoundModel, case: PreparedCase, floor: float) -> PredictedCase:
    """Predict a case that was read, as `answer_case` does.

    Raises:
        DataError: It could not be read.
    """
    if case.error:
        raise DataError(case.error)
    with torch.inference_mode():
        return answer_case(bound, case, floor)
