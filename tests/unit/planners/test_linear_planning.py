"""Planning looks at each case a few times, however many sources and contexts there are."""

from collections.abc import Iterator
from typing import Any

import pytest

from duplus_nnunet.data.case_table import Case, CaseTable, Source
from duplus_nnunet.planners.contexts import ContextPlanner
from duplus_nnunet.planners.planner import DuPLUSPlanner
from duplus_nnunet.planners.survey import CaseSurvey

INTENSITIES = {"min": -1000.0, "p1": -900.0, "p50": 1.0, "p99": 500.0, "max": 900.0}
FOREGROUND = "foreground_intensity_properties_per_channel"


class CountedCases(dict[str, Case]):
    """Cases that count how often one is looked at."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        for name in super().__iter__():
            CountedCases.looks += 1
            yield name

    def __getitem__(self, name: str) -> Case:
        CountedCases.looks += 1
        return super().__getitem__(name)

    def items(self) -> Any:
        return [(name, self[name]) for name in super().__iter__()]

    def values(self) -> Any:
        return [self[name] for name in super().__iter__()]


def count_looks(cases: int, sources: int) -> int:
    """Plan contexts and sources, each source in a context of its own; return how often cases were looked at."""
    names = [f"source {number}" for number in range(sources)]
    members = CountedCases(
        {f"case {number}": Case(names[number % sources], str(number), ("x",), ("x",)) for number in range(cases)}
    )
    table = CaseTable({name: Source("D", name, ("x",), ("CT",)) for name in names}, members)
    survey = CaseSurvey((1.0,) * 3, (9,) * 3, 1.0, ([1.0, 2.0],), (0, 1), (INTENSITIES,))
    host = object.__new__(DuPLUSPlanner)
    host.overwrite_target_spacing, host.anisotropy_threshold = None, 3
    host.dataset_json = {"channel_names": {"0": "image"}}
    host.dataset_fingerprint = {FOREGROUND: {"0": {"mean": 1.0}}}
    planner = ContextPlanner(host, table, dict.fromkeys(members, survey), dict.fromkeys(names, "computed tomography"))
    CountedCases.looks = 0
    contexts = planner.plan_contexts()
    planned = planner.plan_sources(contexts)
    planner.make_fingerprint(contexts)
    assert sum(source["cases"] for source in planned.values()) == cases
    assert all(source["targets"] == source["present"] == {"x": source["cases"]} for source in planned.values())
    return CountedCases.looks


@pytest.mark.parametrize("sources", [1, 20])
def test_looks_grow_as_the_cases(sources: int) -> None:
    assert count_looks(400, sources) == 4 * count_looks(100, sources)


def test_looks_do_not_grow_with_the_sources() -> None:
    assert count_looks(200, 40) == count_looks(200, 2) <= 20 * 200
