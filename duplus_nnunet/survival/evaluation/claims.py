"""Decides what a study is large enough to claim, by its events and the parameters of its models.

Source: Peduzzi et al. 1995 (doi 10.1016/0895-4356(95)00048-8), ten events for each parameter of a Cox model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from duplus_nnunet.survival.evaluation.intervals import LEAST_EVENTS
from duplus_nnunet.survival.records.imputation import count_parameters
from duplus_nnunet.survival.records.schema import ClinicalSchema
from duplus_nnunet.survival.records.table import SEEN, Record

# Events for each parameter: fewer than the first are named, with fewer than the second Cox regression is no claim.
ENOUGH, LEAST = 10.0, 2.0
# Methods whose penalty is too weak to replace events.
UNPENALISED = ("Cox", "Fine-Gray")


@dataclass(frozen=True)
class Claims:
    """What the data support.

    Attributes:
        events: Patients with the event, among all patients of the study.
        parameters: Encoded numbers of the covariates, after rare categories were pooled.
        unsupported: Methods without an effective penalty that have too few events for each parameter.
        compares: Whether enough scored patients have the event to say that a method is better or worse.
    """

    events: int = 0
    parameters: int = 0
    unsupported: tuple[str, ...] = ()
    compares: bool = True

    @property
    def events_per_parameter(self) -> float | None:
        """Events for each parameter; None without parameters."""
        return self.events / self.parameters if self.parameters else None


def find_claims(records: Sequence[Record], schema: ClinicalSchema, methods: Sequence[str], scored: int) -> Claims:
    """Decide what a study can claim.

    Args:
        records: All patients of the study.
        schema: Types of covariates.
        methods: Names of the methods.
        scored: Held-out patients with the event.
    """
    events = sum(record.event == SEEN for record in records)
    parameters = count_parameters(records, schema)
    short = parameters > 0 and events / parameters < LEAST
    unsupported = tuple(name for name in methods if short and name in UNPENALISED)
    return Claims(events, parameters, unsupported, scored >= LEAST_EVENTS)


def describe_claims(claims: Claims) -> list[str]:
    """Return a sentence for each bound that the data do not reach."""
    ratio, notes = claims.events_per_parameter, []
    if ratio is not None and ratio < ENOUGH:
        text = (
            f"{claims.events} patients with the event for {claims.parameters} encoded parameters: {ratio:.3g} events "
            f"per parameter, fewer than {ENOUGH:g}; predictions are likely to be overfitted."
        )
        if claims.unsupported:
            text += (
                f" With fewer than {LEAST:g}, the scores of {' and '.join(claims.unsupported)}, without an effective "
                "penalty, are shown but support no claim. Use fewer covariates, or a penalised method."
            )
        notes.append(text)
    if not claims.compares:
        notes.append(
            f"Fewer than {LEAST_EVENTS} scored patients have the event: coverage of the confidence intervals was not "
            "shown there, so no method is called better or worse than another or than chance."
        )
    return notes
