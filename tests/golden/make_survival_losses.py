"""Writes survival_losses.json: discrete-time losses from pycox, and Cox's partial likelihood from lifelines.

Run it in an environment of its own:

    pip install pycox==0.3.0 lifelines==0.30.3 torch setuptools
    python tests/golden/make_survival_losses.py

Outputs and outcomes are stored with the losses, so that tests need neither this script nor the programs. A place is the
number of bins that a patient survived. pycox assigns a censored patient to the last survived bin, so no patient here is
censored in the first bin.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lifelines import CoxPHFitter
from pycox.models.data import pair_rank_mat
from pycox.models.loss import DeepHitSingleLoss, nll_logistic_hazard, nll_mtlr, nll_pmf

ALPHA, SIGMA = 0.2, 0.1
SIZES = {"few": (6, 3), "more": (40, 5), "many bins": (30, 12), "one bin": (8, 1)}
TIES = {"few": (8, 0), "ties": (40, 0), "heavy ties": (30, 3), "no ties": (25, None)}


def make_bins(count, bins, rng):
    seen = rng.random(count) < 0.5
    places = np.where(seen, rng.integers(0, bins, count), rng.integers(1, bins + 1, count))
    return rng.normal(size=(count, bins)).round(4), places, seen


def measure_bins(logits, places, seen):
    phi, events = torch.tensor(logits), torch.tensor(seen, dtype=torch.float64)
    last = torch.tensor(np.where(seen, places, places - 1))
    ranks = torch.tensor(pair_rank_mat(last.numpy(), seen.astype(np.float32)), dtype=torch.float64)
    torch.set_default_dtype(torch.float64)
    return {
        "logistic hazard": float(nll_logistic_hazard(phi, last, events)),
        "mtlr": float(nll_mtlr(phi, last, events, epsilon=0.0)),
        "pmf": float(nll_pmf(phi, last, events, epsilon=0.0)),
        "deephit": float(DeepHitSingleLoss(ALPHA, SIGMA)(phi, last, events, ranks)),
    }


def measure_cox(log_hazards, times, seen):
    """Fit one coefficient to log hazards by lifelines; the log-likelihood of the fit is Efron's."""
    frame = pd.DataFrame({"x": log_hazards, "t": times, "e": seen})
    fitted = CoxPHFitter().fit(frame, "t", "e", fit_options={"precision": 1e-10})
    return float(fitted.params_["x"]), float(fitted.log_likelihood_)


def main():
    rng = np.random.default_rng(0)
    bins, cox = [], []
    for name, (count, width) in SIZES.items():
        logits, places, seen = make_bins(count, width, rng)
        entry = {"name": name, "logits": logits.tolist(), "places": places.tolist(), "seen": seen.tolist()}
        bins.append(entry | {"losses": measure_bins(logits, places, seen)})
    for name, (count, digits) in TIES.items():
        log_hazards = rng.normal(size=count).round(4)
        times = rng.exponential(10 if digits == 0 else 1, count) * np.exp(-0.5 * log_hazards)
        times = times + 0.01 if digits is None else np.ceil(times * (1 if digits == 0 else 2))
        seen = rng.random(count) < 0.7
        factor, likelihood = measure_cox(log_hazards, times, seen)
        entry = {"name": name, "log_hazards": (factor * log_hazards).tolist(), "times": times.tolist()}
        cox.append(entry | {"seen": seen.tolist(), "log_likelihood": likelihood})
    content = {"programs": "pycox 0.3.0, lifelines 0.30.3", "alpha": ALPHA, "sigma": SIGMA, "bins": bins, "cox": cox}
    Path(__file__).with_name("survival_losses.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
