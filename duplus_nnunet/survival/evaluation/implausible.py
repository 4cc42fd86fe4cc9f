"""Says of a concordance above 0.9 that it is implausible, and which columns carry it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from duplus_nnunet.survival.evaluation.metrics import concordance, pool
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.survival.records.outcome import read_outcome
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import SEEN, Record

_IMPLAUSIBLE = 0.9
_CARRIES = 0.75  # concordance of a column alone
_HARRELL = "Harrell's C"


def note_implausible(study: Study, records: Sequence[Record], schema: ClinicalSchema) -> tuple[str, ...]:
    """Return a remark if a method has a concordance (Harrell) above 0.9 in cross-validation; else nothing."""
    high = {
        method: scores[_HARRELL].value
        for method, scores in study.scores.items()
        if _HARRELL in scores and scores[_HARRELL].value > _IMPLAUSIBLE
    }
    if not high:
        return ()
    method = max(high, key=lambda name: high[name])
    alone = {name: _measure_alone(name, records) for name in schema.covariates}
    ranked = sorted(alone, key=lambda name: -alone[name])
    carriers = [name for name in ranked if alone[name] > _CARRIES] or ranked[:3]
    listed = ", ".join(f"{name!r} ({alone[name]:.2f})" for name in carriers) or "none"
    return (
        f"IMPLAUSIBLE: Harrell's C of {high[method]:.3f} ({method}) is above {_IMPLAUSIBLE}, as when a column encodes "
        f"the outcome. Columns with the highest concordance alone: {listed}. Find out when they were measured.",
    )


def _measure_alone(name: str, records: Sequence[Record]) -> float:
    """Return the concordance (Harrell) of a covariate alone, 0.5 to 1, whatever its direction; 0.5 if there is none.

    Categories are ordered by their share of patients with the event.
    """
    known = [record for record in records if record.values[name] is not None]
    if not known:
        return 0.5
    counts = Counter(record.values[name] for record in known)
    had = Counter(record.values[name] for record in known if record.event == SEEN)
    scores = [
        had[value] / counts[value] if isinstance(value, str) else float(value)
        for record in known
        if (value := record.values[name]) is not None
    ]
    share = pool([concordance(read_outcome(known), np.array(scores))])
    return 0.5 if np.isnan(share) else max(share, 1 - share)
