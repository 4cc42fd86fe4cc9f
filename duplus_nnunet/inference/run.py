"""One run of a prediction: in come cases as they are read, out come answers, and files while the next case is at work."""

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.assembly import Assembly, choose_group, estimate_memory, read_rule
from duplus_nnunet.inference.binding import Binding, Question
from duplus_nnunet.inference.mirroring import find_network
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.reading import Item, describe_failure
from duplus_nnunet.inference.memory import read_memory
from duplus_nnunet.inference.resampling import make_resampler
from duplus_nnunet.outputs.answer import CaseAnswer, Geometry

# A probability of 1 %: where files of probabilities end.
_LEAST_LOGIT = -4.6
# Part of an image that the box of a target fills on the mean; the liver's is a tenth of an abdomen's.
_BOX_SHARE = 0.05


@dataclass(frozen=True)
class Done:
    """A case that was predicted.

    Attributes:
        item: What it was predicted from.
        answer: What was found.
        seconds: By stage.
    """

    item: Item
    answer: CaseAnswer
    seconds: dict[str, float]


@dataclass
class Failures:
    """Cases that went wrong, and why."""

    by_case: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, why: str) -> None:
        """Note a case, and say so at once."""
        self.by_case[case] = why
        sys.stderr.write(f"error: {case}: {why}\n")

    def raise_if_any(self, cases: int) -> None:
        """End the run, after the other cases were finished.

        Raises:
            DataError: There are some.
        """
        if not self.by_case:
            return
        if len(self.by_case) == cases == 1:
            raise DataError(next(iter(self.by_case.values())))
        listed = "\n".join(f"  {case}: {why}" for case, why in self.by_case.items())
        raise DataError(f"{len(self.by_case)} of {cases} cases failed, the others are finished:\n{listed}")


def answer_case(predictor: Any, binding: Binding, item: Item, options: Options) -> Done:
    """Predict one case that was read.

    Targets are walked in groups that fit the memory; the network looks at the image once a group.

    Raises:
        DataError: The memory is too little for a single target.
        ModelError: The network gave logits that are not finite.
    """
    network = find_network(predictor)
    if network is None:
        raise TypeError("answer_case is for DuPLUS networks")
    binding.bind_case(predictor, item.properties)
    question = binding.current
    resampler = make_resampler(
        predictor.configuration_manager, predictor.plans_manager, item.properties, item.data.shape[1:]
    )
    rule = read_rule(predictor.label_manager)
    floor = _LEAST_LOGIT if options.probabilities else 0.0
    assembly = Assembly(resampler, rule, binding.list_asked(question), floor)
    memory = estimate_memory(
        resampler, rule, predictor.configuration_manager.patch_size, len(predictor.list_of_parameters)
    )
    prompts = network.prompts
    size = choose_group(read_memory(options.memory), memory, prompts.count, _BOX_SHARE)
    clock = Clock()
    try:
        for start in range(0, prompts.count, size):
            if size < prompts.count:
                network.bind(prompts.take(range(start, min(start + size, prompts.count))))
            logits = clock.time("network", predictor.predict_logits_from_preprocessed_data, item.data)
            clock.time("resample", assembly.add, logits)
    finally:
        network.bind(prompts)
    labels, targets = clock.time("resample", assembly.finish)
    answer = CaseAnswer(
        item.source.name,
        question.context,
        binding.say_context(question),
        read_geometry(predictor, item.properties),
        labels,
        targets,
    )
    return Done(item, answer, {"read": item.seconds, **clock.seconds})


class Clock:
    """Sums up how long the stages take."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, call: Callable[..., Any], *args: Any) -> Any:
        """Call something, and count its time to a stage."""
        started = time.perf_counter()
        try:
            return call(*args)
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def read_geometry(predictor: Any, properties: dict[str, Any]) -> Geometry:
    """Return the grid of a preprocessed case's image."""
    backward = predictor.plans_manager.transpose_backward
    shape = [int(properties["shape_before_cropping"][axis]) for axis in backward]
    z, y, x = (float(width) for width in properties["spacing"])
    return Geometry((shape[0], shape[1], shape[2]), (z, y, x), properties)


def run_cases(
    predictor: Any,
    items: Iterable[Item],
    options: Options,
    write: Callable[[Done], Any],
    failures: Failures,
) -> list[Any]:
    """Predict cases as they come, and write each one while the network is at work on the next.

    Args:
        predictor: nnU-Net's predictor, bound.
        items: Cases.
        options: Of the run.
        write: Called with each case, in another thread, one at a time.
        failures: Where cases that go wrong are noted; they do not end the run.

    Returns:
        What `write` returned, of the cases that did not fail.
    """
    results: list[Any] = []

    def collect(name: str, future: Future[Any]) -> None:
        try:
            results.append(future.result())
        except Exception as error:  # as in read_case
            failures.add(name, describe_failure(error))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writing") as pool:
        waiting: tuple[str, Future[Any]] | None = None
        for item in items:
            done = _try_answer(predictor, item, options, failures)
            if waiting is not None:
                collect(*waiting)
            waiting = None if done is None else (item.source.name, pool.submit(write, done))
        if waiting is not None:
            collect(*waiting)
    return results


def _try_answer(predictor: Any, item: Item, options: Options, failures: Failures) -> Done | None:
    if item.error:
        failures.add(item.source.name, item.error)
        return None
    try:
        with torch.inference_mode():
            return answer_case(predictor, predictor.duplus_binding, item, options)
    except Exception as error:  # as in read_case
        failures.add(item.source.name, describe_failure(error))
        return None


def drop_image(done: Done) -> Done:
    """Let go of the preprocessed image."""
    return replace(done, item=replace(done.item, data=None))
