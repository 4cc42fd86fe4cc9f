"""Describes the cohort of a study: counts, median follow-up and covariates."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duplus_nnunet.survival.records.outcome import read_outcome, require_sksurv
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import CENSORED, SEEN, Record, join_names


@dataclass(frozen=True)
class Cohort:
    """Patients of a study.

    Attributes:
        name: Name of the dataset.
        records: One record per patient.
        schema: Meaning of the columns of their table.
    """

    name: str
    records: Sequence[Record]
    schema: ClinicalSchema

    @property
    def events(self) -> int:
        """Number of patients with the event."""
        return sum(record.event == SEEN for record in self.records)

    @property
    def competing(self) -> int:
        """Number of patients with a competing event."""
        return sum(record.event not in (SEEN, CENSORED) for record in self.records)

    def count_centres(self) -> dict[str, tuple[int, int]]:
        """Count patients and events by centre; empty if no centre is known."""
        sizes = Counter(record.centre for record in self.records if record.centre)
        events = Counter(record.centre for record in self.records if record.event == SEEN)
        return {name: (sizes[name], events[name]) for name in sorted(sizes)}

    def median_follow_up(self) -> float | None:
        """Return the median follow-up in days, by the reverse Kaplan-Meier estimator; None if it is not reached.

        The event and competing events end the observation of a patient; only censoring is the end of follow-up.

        Source: Schemper and Smith 1996 (doi 10.1016/0197-2456(96)00075-X).
        """
        require_sksurv()
        from sksurv.nonparametric import kaplan_meier_estimator

        outcome = read_outcome(self.records)
        censored = np.array([record.event == CENSORED for record in self.records], bool)
        if not censored.any():
            return None
        times, share = kaplan_meier_estimator(censored, outcome.time, outcome.entry)
        below = np.flatnonzero(share <= 0.5)
        return float(times[below[0]]) if len(below) else None

    def describe_covariate(self, name: str) -> tuple[str, int]:
        """Summarise the known values of a covariate, and count the missing ones."""
        values = [record.values.get(name) for record in self.records]
        known = [value for value in values if value is not None]
        missing, form = len(values) - len(known), self.schema.covariates[name]
        if not known:
            return "no known value", missing
        if form.type == "numeric":
            low, middle, high = np.quantile(np.array(known, np.float64), [0.25, 0.5, 0.75])
            return f"median {middle:g} ({low:g} to {high:g})", missing
        if form.type == "ordinal":
            ranks = Counter(int(float(value)) for value in known)
            return ", ".join(f"{form.order[rank]}: {ranks[rank]}" for rank in sorted(ranks)), missing
        counts = Counter(map(str, known)).most_common()
        return join_names([f"{value}: {count}" for value, count in counts]), missing
