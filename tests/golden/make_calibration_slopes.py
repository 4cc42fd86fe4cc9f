"""Writes calibration_slopes.json: calibration slopes with robust standard errors, and median follow-up, from lifelines.

Run it in an environment of its own:

    pip install lifelines==0.30.3
    python tests/golden/make_calibration_slopes.py

Outcomes, predictions and folds are stored with the numbers, so that tests need neither this script nor lifelines. The
slope is the coefficient of log(-log S) in a Cox model that is stratified by fold; times are distinct. Predictions are
those of a Cox model, its log-hazard ratios multiplied by a factor: with a large factor they are far too extreme, where
undamped Newton steps do not converge.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter

CASES = {"4 times": (200, 1, 4.0), "5 times": (200, 1, 5.0), "own": (200, 1, 1.0), "folds": (150, 3, 3.0)}
HORIZON = 1.0


def draw(count, folds, factor, rng):
    x = rng.normal(size=(count, 5))
    event = rng.exponential(np.exp(-0.35 * x.sum(1)))
    censoring = rng.exponential(1.5, count)
    time, seen = np.minimum(event, censoring), event <= censoring
    frame = pd.DataFrame(x).assign(time=time, event=seen)
    fitted = CoxPHFitter().fit(frame.iloc[: count // 3], "time", "event")
    risk = factor * (x @ fitted.params_.to_numpy())
    survival = np.exp(-0.5 * np.exp(risk))
    return time.round(6), seen, survival.round(8), rng.integers(0, folds, count)


def measure(time, seen, survival, fold):
    frame = pd.DataFrame(
        {
            "x": np.log(-np.log(np.clip(survival, 0.001, 0.999))),
            "time": np.minimum(time, HORIZON),
            "event": seen & (time <= HORIZON),
            "fold": fold,
        }
    )
    fitted = CoxPHFitter().fit(
        frame, "time", "event", strata="fold", robust=True, fit_options={"precision": 1e-12, "step_size": 0.3}
    )
    return float(fitted.params_["x"]), float(fitted.standard_errors_["x"])


def follow(rng):
    """Median follow-up by reverse Kaplan-Meier; competing events end the observation, as the event does."""
    time = rng.exponential(800, 80).round(3)
    code = rng.integers(0, 3, 80)  # 0 censored, 1 event, 2 competing event
    reverse = KaplanMeierFitter().fit(time, code == 0).median_survival_time_
    as_censored = KaplanMeierFitter().fit(time, code != 1).median_survival_time_
    return {
        "time": time.tolist(),
        "code": code.tolist(),
        "median": float(reverse),
        "median with competing events as the end of follow-up": float(as_censored),
    }


def main():
    cases = []
    for number, (name, (count, folds, factor)) in enumerate(CASES.items()):
        rng = np.random.default_rng([26, number])
        time, seen, survival, fold = draw(count, folds, factor, rng)
        slope, error = measure(time, seen, survival, fold)
        cases.append(
            {
                "name": name,
                "horizon": HORIZON,
                "time": time.tolist(),
                "event": seen.tolist(),
                "survival": survival.tolist(),
                "fold": fold.tolist(),
                "slope": slope,
                "robust standard error": error,
            }
        )
    content = {"cases": cases, "follow-up": follow(np.random.default_rng(27))}
    file = Path(__file__).with_name("calibration_slopes.json")
    file.write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
    for case in cases:
        print(case["name"], case["slope"], case["robust standard error"])
    print({name: value for name, value in content["follow-up"].items() if name.startswith("median")})


if __name__ == "__main__":
    main()
