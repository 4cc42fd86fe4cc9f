"""Writes icare.json: signs and risks of ICARE without bagging from icare 0.1.0, the package of its authors.

The package needs scikit-learn before 1.8. In an environment of its own:

    pip install icare==0.1.0 'scikit-learn<1.8' scikit-survival
    python tests/golden/make_icare.py

The data are parts of scikit-survival's gbsg2 and whas500; covariates, outcomes and results are stored, so that tests
need neither this script nor the package. Signs are those of Harrell's concordance, and no covariate is dropped.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from icare.survival import IcareSurvival
from sksurv import datasets

COLUMNS = {"gbsg2": ["age", "estrec", "pnodes", "progrec", "tsize"], "whas500": ["age", "bmi", "diasbp", "hr", "sysbp"]}
PATIENTS = 60


def fit(name: str) -> dict[str, Any]:
    """Fit one table."""
    table, outcome = getattr(datasets, f"load_{name}")()
    x = table[COLUMNS[name]].astype(float).iloc[:PATIENTS].reset_index(drop=True)
    event, time = (outcome[field][:PATIENTS] for field in outcome.dtype.names)
    y = np.array(list(zip(event, time, strict=True)), dtype=[("event", "?"), ("time", "f8")])
    model = IcareSurvival(sign_method="harrell", random_state=0).fit(x, y)
    signs = dict(zip(model.used_features_, model.weights_, strict=True))
    return {
        "x": x.to_numpy().tolist(),
        "event": event.tolist(),
        "time": time.tolist(),
        "signs": [signs[column] for column in COLUMNS[name]],
        "risk": [round(float(risk), 6) for risk in model.predict(x)],
    }


def main() -> None:
    """Write the file."""
    content = {"programs": "icare 0.1.0", **{name: fit(name) for name in COLUMNS}}
    (Path(__file__).parent / "icare.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
