"""Writes competing_risks.json: cumulative incidence, Fine-Gray, concordance and Brier score with competing events.

Run it in an environment of its own:

    pip install scikit-survival==0.28.0
    python tests/golden/make_competing_risks.py

The data are scikit-survival's bmt and cgvhd. Cumulative incidence is that of scikit-survival, whose documentation
compares it with R's cmprsk. Fine-Gray, concordance (Wolbers et al. 2009
and 2014) and Brier score are written out by their formulas, patient by patient, and share nothing with the package;
Fine-Gray's weighted partial likelihood is maximised by SciPy. Outcomes are stored with the numbers.
"""

import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from sksurv.datasets import load_bmt, load_cgvhd
from sksurv.nonparametric import cumulative_incidence_competing_risks


def read_data():
    for name, load in (("bmt", load_bmt), ("cgvhd", load_cgvhd)):
        x, y = load()
        cause, time = (np.asarray(y[field]) for field in y.dtype.names)
        if name == "bmt":
            columns = {"dis": x["dis"].astype(float)}
        else:
            columns = {"age": x["age"].astype(float) / 10, "PB": (x["tx"] == "PB").astype(float)}
        yield name, np.array(list(columns.values())).T, np.minimum(cause, 2), time.astype(float)


def distribute_censoring(cause, time, at, just_before, events_first=True):
    """Kaplan-Meier of censoring; at equal times, events come first, or (as in cmprsk's crr) are still at risk."""
    value = 1.0
    for moment in np.unique(time[cause == 0]):
        if moment < at or (moment == at and not just_before):
            at_risk = np.sum((time > moment) | ((time == moment) & ((cause == 0) | (not events_first))))
            value *= 1 - np.sum((time == moment) & (cause == 0)) / at_risk
    return value


def fit_fine_gray(x, cause, time, events_first):
    before = {moment: distribute_censoring(cause, time, moment, True, events_first) for moment in np.unique(time)}
    events = np.flatnonzero(cause == 1)

    def lose(beta):
        logs, loss = x @ beta, 0.0
        for i in events:
            weights = np.array(
                [
                    1.0 if time[j] >= time[i] else before[time[i]] / before[time[j]] if cause[j] == 2 else 0.0
                    for j in range(len(time))
                ]
            )
            loss -= logs[i] - np.log(np.sum(weights * np.exp(logs)))
        return loss

    fitted = minimize(lose, np.zeros(x.shape[1]), method="BFGS", options={"gtol": 1e-8})
    return fitted.x


def compare(cause, time, risk, weighted):
    before = [distribute_censoring(cause, time, moment, True) for moment in time]
    top = bottom = 0.0
    for i in np.flatnonzero(cause == 1):
        for j in range(len(time)):
            later = time[j] > time[i] or (time[j] == time[i] and cause[j] != 1)
            stays = cause[j] == 2 and time[j] < time[i]
            if later or stays:
                weight = 1 / before[i] / (before[i] if later else before[j]) if weighted else 1.0
                bottom += weight
                top += weight * (0.5 if risk[i] == risk[j] else float(risk[i] > risk[j]))
    return top / bottom


def score_brier(cause, time, incidence, horizon):
    total = 0.0
    for i in range(len(time)):
        if time[i] <= horizon and cause[i] > 0:
            total += (float(cause[i] == 1) - incidence[i]) ** 2 / distribute_censoring(cause, time, time[i], True)
        elif time[i] > horizon:
            total += incidence[i] ** 2 / distribute_censoring(cause, time, horizon, False)
    return total / len(time)


def main():
    content = []
    for name, x, cause, time in read_data():
        times, curves = cumulative_incidence_competing_risks(cause, time)
        beta = fit_fine_gray(x, cause, time, True)
        as_crr = fit_fine_gray(x, cause, time, False)
        risk = x @ beta
        horizon = float(np.quantile(time, 0.6))
        incidence = 1 / (1 + np.exp(-risk))
        content.append({
            "name": name, "x": x.tolist(), "cause": cause.tolist(), "time": time.tolist(), "times": times.tolist(),
            "incidence": curves[1].tolist(), "fine_gray": beta.tolist(),
            "fine_gray_as_crr": as_crr.tolist(), "risk": risk.tolist(), "horizon": horizon,
            "wolbers": compare(cause, time, risk, False), "weighted": compare(cause, time, risk, True),
            "predicted": incidence.tolist(), "brier": score_brier(cause, time, incidence, horizon),
        })  # fmt: skip
    programs = "scikit-survival 0.28.0, SciPy"
    file = Path(__file__).with_name("competing_risks.json")
    file.write_text(json.dumps({"programs": programs, "data": content}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
