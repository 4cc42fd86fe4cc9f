"""Make validation.json: an external validation of fixed predictions, computed by lifelines.

Run: python make_validation.py   (lifelines 0.30.3, pandas, numpy; no code of this package)

Concordance: lifelines' concordance_index. O/E: Kaplan-Meier at the horizon. Slope: a Cox model of log(-log S) until the
horizon, ties by Breslow do not occur. ICI: a Cox model of a restricted cubic spline with three knots, whose baseline
hazard is Breslow's. Recalibration: the factor of the cumulative hazard is found by bisection.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index

N, HORIZON = 120, 400.0


def draw():
    rng = np.random.default_rng(7)
    risk = rng.normal(size=N)
    event, censoring = rng.exponential(500 * np.exp(-0.6 * risk)), rng.uniform(50, 1500, N)
    time, had = np.round(np.minimum(event, censoring), 3), event <= censoring
    survival = np.exp(-HORIZON / 800 * np.exp(1.1 * risk))
    return risk, time, had, survival


def fit(columns, time, had):
    frame = pd.DataFrame({**columns, "time": np.minimum(time, HORIZON), "event": had & (time <= HORIZON)})
    return CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-12}), frame


def spline(x):
    low, middle, high = np.quantile(x, [0.1, 0.5, 0.9])
    cube = lambda part: np.maximum(part, 0) ** 3  # noqa: E731
    bent = cube(x - low) - cube(x - middle) * (high - low) / (high - middle)
    bent = bent + cube(x - high) * (middle - low) / (high - middle)
    return {"x": x, "bent": bent / (high - low) ** 2}


def bisect(differ, low=1e-6, high=1e6):
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if differ(middle) > 0 else (low, middle)
    return low


def main():
    risk, time, had, survival = draw()
    observed = float(KaplanMeierFitter().fit(time, had).predict(HORIZON))
    x = np.log(-np.log(survival))
    slope = float(fit({"x": x}, time, had)[0].params_["x"])
    model, frame = fit(spline(x), time, had)
    smooth = model.predict_survival_function(frame, times=[HORIZON]).to_numpy()[0]
    hazard = -np.log(survival)
    large = bisect(lambda factor: np.exp(-factor * hazard).mean() - observed)
    scaled = bisect(lambda factor: np.exp(-factor * hazard**slope).mean() - observed)
    result = {
        "risk": risk.tolist(), "time": time.tolist(), "event": had.tolist(), "survival": survival.tolist(),
        "horizon": HORIZON, "concordance": float(concordance_index(time, -risk, had)),
        "ratio": (1 - observed) / (1 - float(survival.mean())), "slope": slope,
        "ici": float(np.abs(smooth - survival).mean()), "factor_large": large, "factor_slope": scaled,
    }  # fmt: skip
    Path(__file__).with_name("validation.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
