"""Writes delayed_entry.json: Cox regression of a simulated table with delayed entry, by statsmodels and lifelines.

Run it in an environment of its own:

    pip install statsmodels==0.15.0 lifelines==0.30.3
    python tests/golden/make_delayed_entry.py

Patients enter late and are seen only if they are free of the event then. Times are rounded, so that there are ties.
statsmodels' PHReg takes ties by Breslow's method; lifelines fits times without ties, with and without a ridge penalty.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from statsmodels.duration.hazard_regression import PHReg

RIDGE = 20.0


def draw(count=160, seed=3):
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(size=count), rng.integers(0, 2, count).astype(float)], axis=1)
    event = rng.exponential(10 * np.exp(-(0.8 * x[:, 0] - 0.6 * x[:, 1])))
    entry, censoring = rng.uniform(0, 8, count), rng.uniform(6, 30, count)
    entry[:40] = 0.0
    time, seen = np.minimum(event, censoring), event <= censoring
    kept = time > entry + 0.5
    return x[kept], time[kept], seen[kept], entry[kept]


def fit_lifelines(x, time, seen, entry, penalizer):
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "t": time, "e": seen, "s": entry})
    fitter = CoxPHFitter(penalizer=penalizer)
    fitter.fit(table, "t", "e", entry_col="s", fit_options={"precision": 1e-10})
    return fitter


def main():
    x, time, seen, entry = draw()
    rounded = np.ceil(time)
    # No entry at the time of an event, which programs count differently (here and in R, at risk only afterwards).
    late = np.where(entry > 0, np.floor(entry) + 0.5, 0.0)
    breslow = PHReg(rounded, x, status=seen.astype(int), entry=late, ties="breslow").fit(disp=0, gtol=1e-10)
    plain = fit_lifelines(x, time, seen, entry, 0.0)
    ridge = fit_lifelines(x, time, seen, entry, RIDGE / len(time))
    content = {
        "programs": "statsmodels 0.15.0, lifelines 0.30.3",
        "x": x.tolist(), "time": time.tolist(), "event": seen.tolist(), "entry": entry.tolist(),
        "rounded_time": rounded.tolist(), "rounded_entry": late.tolist(),
        "tied": {"coefficients": breslow.params.tolist(), "errors": breslow.bse.tolist()},
        "untied": {"coefficients": plain.params_.tolist(), "errors": plain.standard_errors_.tolist()},
        "ridge": RIDGE, "penalised": ridge.params_.tolist(),
    }  # fmt: skip
    Path(__file__).with_name("delayed_entry.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
