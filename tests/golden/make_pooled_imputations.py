"""Writes pooled_imputations.json: estimates of several imputations pooled by statsmodels' MICE.

Run it in an environment of its own:

    pip install statsmodels==0.15.0
    python tests/golden/make_pooled_imputations.py

The results of the imputations are given to MICE's own method `combine`, so that only its pooling is used.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from statsmodels.imputation.mice import MICE, MICEData
from statsmodels.regression.linear_model import OLS


def main():
    rng = np.random.default_rng(0)
    values, errors = rng.normal([0.5, -1.0, 2.0], [0.1, 0.02, 0.5], (6, 3)), rng.uniform(0.1, 0.4, (6, 3))
    mice = MICE("y ~ x", OLS, MICEData(pd.DataFrame({"y": [1.0, 2.0, np.nan], "x": [0.0, 1.0, 2.0]})))
    fits = [
        SimpleNamespace(params=own, cov_params=lambda spread=spread: np.diag(spread**2))
        for own, spread in zip(values, errors, strict=True)
    ]
    mice.results_list = [SimpleNamespace(_results=fit, scale=1.0) for fit in fits]
    mice.exog_names, mice.endog_names = ["a", "b", "c"], "y"
    pooled = mice.combine()
    content = {
        "program": "statsmodels 0.15.0", "values": values.tolist(), "errors": errors.tolist(),
        "pooled": np.asarray(pooled.params).tolist(), "pooled_errors": np.asarray(pooled.bse).tolist(),
    }  # fmt: skip
    Path(__file__).with_name("pooled_imputations.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
