"""Damaged files are refused with a message, or mean what they say: no trace, no hang, no code, no wrong value."""

import os
import sys
from pathlib import Path

import pytest

from .doors import DOORS
from .fuzzing import FAULTS, Report, format_report, fuzz, write_progress

# A long run sets these: `make fuzz INPUTS=1000 SEED=1`.
INPUTS = int(os.environ.get("DUPLUS_FUZZ_INPUTS", "0"))
SEED = int(os.environ.get("DUPLUS_FUZZ_SEED", "0"))
KEEP = os.environ.get("DUPLUS_FUZZ_KEEP")
# Doors whose every input loads a network and takes a fraction of a second.
SLOW = {"plans.json": 12, "dataset.json": 12, "checkpoint": 12, "checkpoint, bit flips": 12, "checkpoint, attacked": 4}
FEW = 40

REPORTS: dict[str, Report] = {}


@pytest.mark.skipif(sys.platform == "win32", reason="the time limit needs a signal that Windows lacks")
@pytest.mark.parametrize("name", DOORS)
def test_no_fault(name: str) -> None:
    report = fuzz(DOORS[name], INPUTS or SLOW.get(name, FEW), SEED, Path(KEEP) if KEEP else None)
    REPORTS[name] = report
    if INPUTS:
        write_progress(name, report)
    assert not any(report.counts[fault] for fault in FAULTS), format_report({name: report})
    assert report.counts["refused"] > 0


@pytest.mark.skipif(not INPUTS, reason="the table is for long runs: make fuzz")
def test_table() -> None:
    sys.stderr.write(format_report(REPORTS))
    assert REPORTS
