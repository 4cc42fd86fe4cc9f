"""Cases one after another: in comes each as it was read, out comes what was found, written in the meantime."""

import math
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.assembly import Assembly, choose_group, estimate_memory, read_rule
from duplus_nnunet.inference.memory import read_memory
from duplus_nnunet.inference.mirroring import find_network
from duplus_nnunet.inference.reading import InputCase, PreparedCase, report_failure
from duplus_nnunet.inference.resampling import make_resampler
from duplus_nnunet.inference.selection import get_selection
from duplus_nnunet.outputs.answer import CaseAnswer, Geometry
from duplus_nnunet.reporting.presence import compute_peak_logits

# A probability of 1 %: where files of probabilities end.
LEAST_LOGIT = -4.6
# Part of an image that the box of a target fills on the mean; the liver's is a tenth of an abdomen's.
_BOX_SHARE = 0.05


@dataclass(frozen=True)
class PredictedCase:
    """A case that was predicted.

    Attributes:
        item: What it was predicted from, without the image.
        answer: What was found.
        seconds: By stage.
    """

    item: PreparedCase
    answer: CaseAnswer
    seconds: dict[str, float]


@dataclass
class Failures:
    """Cases that went wrong, and why."""

    by_case: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, why: str) -> None:
        """Note a case, and say so at once."""
        self.by_case[case] = why
        sys.stderr.write(f"failed: {case}: {why}\n")

    def raise_if_any(self, cases: int) -> None:
        """End the run with an error, now that the other cases are finished.

        Raises:
            DataError: Some went wrong.
        """
        if not self.by_case:
            return
        if len(self.by_case) == cases == 1:
            raise DataError(next(iter(self.by_case.values())))
        listed = "\n".join(f"  {case}: {why}" for case, why in self.by_case.items())
        others = ", the others are finished" if len(self.by_case) < cases else ""
        raise DataError(f"{len(self.by_case)} of {cases} cases failed{others}:\n{listed}")


class Clock:
    """Sums up how long stages take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, call: Callable[..., Any], *args: Any) -> Any:
        """Call something, and count its time to a stage."""
        started = time.perf_counter()
        try:
            return call(*args)
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def answer_case(predictor: Any, item: PreparedCase, floor: float = 0.0) -> PredictedCase:
    """Predict one case that was read.

    Targets are walked in groups that fit the memory; the network looks at the image once a group.

    Args:
        predictor: nnU-Net's predictor, bound.
        item: The case.
        floor: Logit that a voxel must exceed to be kept in a target's box, 0 or less.

    Raises:
        DataError: The memory is too little for a single target.
        ModelError: The network gave logits that are not finite.
    """
    binding, network, clock = predictor.duplus_binding, find_network(predictor), Clock()
    if network is None:
        raise TypeError("Only a bound DuPLUS network answers.")
    binding.bind_case(predictor, item.properties)
    question, prompts, manager = binding.current, network.prompts, predictor.configuration_manager
    asked = binding.list_asked(question)
    resampler = make_resampler(manager, predictor.plans_manager, item.properties, item.data.shape[1:])
    rule = read_rule(predictor.label_manager)
    assembly, evidence = Assembly(resampler, rule, asked, floor), []
    memory = estimate_memory(resampler, rule, manager.patch_size, len(predictor.list_of_parameters))
    share = 1.0 if floor == -math.inf else _BOX_SHARE
    size = choose_group(read_memory(get_selection().options.memory), memory, prompts.count, share)
    try:
        for start in range(0, prompts.count, size):
            if size < prompts.count:
                network.bind(prompts.take(range(start, min(start + size, prompts.count))))
            logits = clock.time("network", predictor.predict_logits_from_preprocessed_data, item.data)
            evidence += clock.time("resample", compute_peak_logits, logits, manager.spacing)
            clock.time("resample", assembly.add, logits)
    finally:
        network.bind(prompts)
    labels, targets = clock.time("resample", assembly.finish)
    judge = predictor.duplus_model.calibration.predict_presence
    # The model was calibrated on what it was trained on last; of a base or an adapter beside it, it knows nothing.
    owners = prompts.adapters or (network.default_adapter,) * prompts.count
    judged = (
        replace(one, presence=judge(one.name, found) if owner == network.default_adapter else None)
        for one, found, owner in zip(targets, evidence, owners, strict=True)
    )
    grid = read_geometry(predictor, item.properties)
    answer = CaseAnswer(
        item.source.name, question.context, binding.context_sentence(question), grid, labels, tuple(judged)
    )
    return PredictedCase(replace(item, data=None), answer, {"read": item.seconds, **clock.seconds})


def read_geometry(predictor: Any, properties: dict[str, Any]) -> Geometry:
    """Return the grid of a preprocessed case's image, axes in the reader's order."""
    before = properties["shape_before_cropping"]
    d, h, w = (int(before[axis]) for axis in predictor.plans_manager.transpose_backward)
    z, y, x = (float(width) for width in properties["spacing"])
    return Geometry((d, h, w), (z, y, x), properties)


def run_cases(
    predictor: Any,
    items: Iterable[PreparedCase],
    floor: float,
    write: Callable[[PredictedCase], Any],
    fail: Callable[[InputCase, str], None],
) -> list[Any]:
    """Predict cases as they come, and write each one while the network is at work on the next.

    Args:
        predictor: nnU-Net's predictor, bound.
        items: Cases.
        floor: As for answer_case.
        write: Called with each case, in another thread, one at a time.
        fail: Called with each case that went wrong, and why; it does not end the run.

    Returns:
        What `write` returned, of the cases that did not fail.
    """
    results: list[Any] = []

    def collect(source: InputCase, future: Future[Any]) -> None:
        try:
            results.append(future.result())
        except Exception as error:  # writers have exceptions of their own, and no case may end the others
            fail(source, report_failure(error))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writing") as pool:
        waiting: tuple[InputCase, Future[Any]] | None = None
        for item in items:
            try:
                done = _answer(predictor, item, floor)
            except Exception as error:  # as above
                fail(item.source, report_failure(error))
                continue
            if waiting is not None:
                collect(*waiting)
            waiting = item.source, pool.submit(write, done)
        if waiting is not None:
            collect(*waiting)
    return results


def _answer(predictor: Any, item: PreparedCase, floor: float) -> PredictedCase:
    if item.error:
        raise DataError(item.error)
    with torch.inference_mode():
        return answer_case(predictor, item, floor)
