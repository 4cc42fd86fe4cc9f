"""Writes tied_scores.json: scores of censored outcomes with ties, from their definitions in exact fractions.

    python tests/golden/make_tied_scores.py

Uses the standard library only, and no code of the package. At a time that several patients share, events come before
censorings. G(t) is the Kaplan-Meier estimate of the probability of being uncensored, G(t-) that just before t.

- Brier score at u (Graf et al. 1999): the mean of S(u)^2 / G(t-) over patients with the event at t <= u, and of
  (1 - S(u))^2 / G(u) over patients free of it at u; integrated by trapezoids over the times, over their span.
- C (Uno et al. 2011): pairs of a patient with the event at t < tau and one followed longer, or censored at t, weighted
  by 1 / G(t-)^2.
- AUC at u (Uno et al. 2007): pairs of a patient with the event at t <= u and one followed beyond u, weighted by
  1 / G(t-).
"""

import json
import random
from fractions import Fraction
from pathlib import Path


def make_censoring(train):
    """Return G as a function of the time and of whether it is that just before the time."""

    def uncensored(time, just_before):
        product = Fraction(1)
        for moment in sorted({t for t, event in train if not event}):
            if moment > time or (just_before and moment == time):
                break
            lost = sum(t == moment and not event for t, event in train)
            at_risk = sum(t >= moment for t, _ in train) - sum(t == moment and event for t, event in train)
            product *= Fraction(at_risk - lost, at_risk)
        return product

    return uncensored


def brier(train, test, survival, time):
    uncensored = make_censoring(train)
    total = Fraction(0)
    for (t, event), predicted in zip(test, survival, strict=True):
        if t <= time and event:
            total += predicted**2 / uncensored(t, True)
        elif t > time:
            total += (1 - predicted) ** 2 / uncensored(time, False)
    return total / len(test)


def integrate(values, times):
    parts = [(values[i] + values[i + 1]) / 2 * (times[i + 1] - times[i]) for i in range(len(times) - 1)]
    return sum(parts) / (times[-1] - times[0])


def compare(risk, other):
    return Fraction(1) if risk > other else Fraction(1, 2) if risk == other else Fraction(0)


def uno(train, test, risks, tau):
    uncensored = make_censoring(train)
    top = bottom = Fraction(0)
    for i, (t, event) in enumerate(test):
        if not event or t >= tau:
            continue
        weight = 1 / uncensored(t, True) ** 2
        for j, (other, other_event) in enumerate(test):
            if other > t or (other == t and not other_event):
                top += weight * compare(risks[i], risks[j])
                bottom += weight
    return top / bottom


def auc(train, test, risks, time):
    uncensored = make_censoring(train)
    top = bottom = Fraction(0)
    for i, (t, event) in enumerate(test):
        if not event or t > time:
            continue
        for j, (other, _) in enumerate(test):
            if other > time:
                top += compare(risks[i], risks[j]) / uncensored(t, True)
                bottom += 1 / uncensored(t, True)
    return top / bottom


def draw(rng, count, years):
    risks = [Fraction(rng.randint(-4, 4), 2) for _ in range(count)]
    ends = [rng.expovariate(0.2 * 2 ** float(risk / 2)) for risk in risks]
    limits = [rng.uniform(1, 9) for _ in range(count)]
    rows = [(min(end, limit), end <= limit) for end, limit in zip(ends, limits, strict=True)]
    return [(int(time) + 1 if years else Fraction(round(time * 1000) + 1, 1000), seen) for time, seen in rows], risks


def describe(name, train, test, risks, times):
    survival = [[Fraction(min(20, max(1, 20 - 2 * int(time) - 2 * int(risk))), 21) for time in times] for risk in risks]
    scores = [brier(train, test, [row[i] for row in survival], time) for i, time in enumerate(times)]
    return {
        "name": name,
        "train": [[float(time), seen] for time, seen in train],
        "test": [[float(time), seen] for time, seen in test],
        "risk": [float(risk) for risk in risks],
        "times": [float(time) for time in times],
        "survival": [[float(value) for value in row] for row in survival],
        "Brier": [float(score) for score in scores],
        "integrated Brier": float(integrate(scores, times)),
        "tau": float(times[-1]),
        "Uno's C": float(uno(train, test, risks, times[-1])),
        "AUC": [float(auc(train, test, risks, time)) for time in times],
    }


def main():
    rng = random.Random(0)
    cases = []
    sizes = (("whole years", (60, 30), True), ("heavy ties", (25, 25), True), ("no ties", (40, 20), False))
    for name, counts, years in sizes:
        train, _ = draw(rng, counts[0], years)
        test, risks = draw(rng, counts[1], years)
        last = max(time for time, _ in train)
        test = [(min(time, last), seen and time < last) for time, seen in test]
        times = [Fraction(time, 2) for time in ((4, 6, 8, 10) if years else (3, 6, 9))]
        cases.append(describe(name, train, test, risks, times))
    Path(__file__).with_name("tied_scores.json").write_text(json.dumps({"cases": cases}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
