"""Measures whether the intervals of `intervals.py` over trainings and patients cover the true mean, by simulation.

Scores are a mean, plus normal deviations of trainings, of patients, and of both together. Each repeat draws
them again; coverage is the share of 95 % intervals that contain the mean. Percentiles of the same draws, which know
only the trainings there are, stand beside it. A seeded run gives the same result.

Example:
  python benchmarks/training_intervals.py > training_intervals.json    # less than a minute
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import intervals
import numpy as np

from duplus_nnunet.reporting.bootstrap import find_interval

MEAN = 0.5


@dataclass(frozen=True)
class Setting:
    """Number of trainings and patients, and standard deviations of the score over each, and over both together."""

    trainings: int
    patients: int
    of_trainings: float
    of_patients: float
    of_both: float


SETTINGS = (
    Setting(2, 16, 0.03, 0.05, 0.03),
    Setting(3, 16, 0.01, 0.05, 0.03),
    Setting(3, 16, 0.03, 0.05, 0.03),
    Setting(3, 16, 0.10, 0.05, 0.03),
    Setting(5, 16, 0.03, 0.05, 0.03),
    Setting(3, 60, 0.005, 0.15, 0.05),
)


def draw(setting: Setting, rng: np.random.Generator) -> list[intervals.Score]:
    """Draw the scores of all patients by all trainings."""
    shape = setting.trainings, setting.patients
    table = MEAN + setting.of_trainings * rng.normal(size=(shape[0], 1)) + setting.of_both * rng.normal(size=shape)
    table = table + setting.of_patients * rng.normal(size=shape[1])
    return [intervals.Score(str(t), str(p), "target", float(table[t, p])) for t, p in np.ndindex(shape)]


def measure(setting: Setting, repeats: int, rng: np.random.Generator) -> dict[str, Any]:
    """Measure the coverage of both kinds of interval, and the median width of those of `intervals.py`."""
    covered, percentiles, widths = 0, 0, []
    for _ in range(repeats):
        scores = draw(setting, rng)
        low, high = intervals.estimate(scores, -1.0)["interval_95"]
        covered += low <= MEAN <= high
        widths.append(high - low)
        other = find_interval(intervals.draw_means(scores), setting.patients)
        percentiles += other is not None and other[0] <= MEAN <= other[1]
    return {
        **asdict(setting),
        "coverage": round(covered / repeats, 3),
        "coverage of percentiles": round(percentiles / repeats, 3),
        "median width": round(float(np.median(widths)), 4),
    }


def main() -> int:
    """Measure all settings; prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--draws", type=int, default=1000, help="of each bootstrap (default: %(default)s)")
    args = parser.parse_args()
    intervals.DRAWS = args.draws
    rng = np.random.default_rng(0)
    rows = [measure(setting, args.repeats, rng) for setting in SETTINGS]
    print(json.dumps({"repeats": args.repeats, "draws": args.draws, "settings": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
