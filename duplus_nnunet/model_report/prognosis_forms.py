"""The forms of the files of `duplus survival evaluate` that a report reads, of this version and of earlier ones."""

from collections.abc import Mapping, Sequence

from duplus_nnunet.model_report.blocks import Cell
from duplus_nnunet.model_report.result_files import EstimateForm, ResultForm, format_estimate

METRICS_NAME, PREDICTIONS_NAME = "metrics.json", "predictions.csv"
AGAIN = "Run duplus survival evaluate -o FOLDER again with this version."


class ScoredForm(ResultForm):
    """How many patients were scored, and how many of them had the event."""

    patients: int
    events: int


class SlopeForm(ResultForm):
    """Calibration of a method at one horizon (days): observed less predicted survival, and the slope."""

    horizon_days: float
    observed_less_predicted: EstimateForm
    slope: EstimateForm


class BinForm(ResultForm):
    """Patients of similar predicted survival: predicted and observed survival, 0 to 1."""

    patients: int
    predicted: float
    observed: float | None
    interval: tuple[float, float] | None = None


class BinsForm(ResultForm):
    """The groups of one horizon (days)."""

    horizon_days: float
    groups: Sequence[BinForm]


class RiskGroupForm(ResultForm):
    """A risk group, and its observed survival (0 to 1) at each horizon."""

    name: str
    patients: int
    events: int
    survival_at_horizons: Sequence[EstimateForm]


class SplitForm(ResultForm):
    """The risk groups of one seed."""

    seed: int
    groups: Sequence[RiskGroupForm]
    log_rank_p_descriptive: float | None = None


class HorizonForm(ResultForm):
    """Area under the time-dependent ROC curve and Brier score of a method at one horizon (days)."""

    horizon_days: float
    AUC: EstimateForm
    Brier: EstimateForm | None = None


class StudyForm(ResultForm):
    """Content of metrics.json; scores and their directions are by name."""

    version: int
    horizons_days: Sequence[float]
    higher_is_better: Mapping[str, bool]
    scores: Mapping[str, Mapping[str, EstimateForm]]
    scored: ScoredForm | None = None
    first_method: str | None = None
    first_less_others: Mapping[str, Mapping[str, EstimateForm]] = {}
    at_horizons: Mapping[str, Sequence[HorizonForm]] = {}
    calibration: Mapping[str, Sequence[SlopeForm]] = {}
    calibration_groups: Sequence[BinsForm] = ()
    risk_groups: Sequence[SplitForm] = ()
    notes: Sequence[str] = ()


def format_value(value: EstimateForm) -> str | None:
    """Format a value with its interval; None if it is not defined."""
    return format_estimate(value.value, value.interval)


def list_cells(value: EstimateForm) -> dict[str, Cell]:
    """Return the cells of a value in a chart's numbers."""
    low, high = value.interval or (None, None)
    return {"value": value.value, "low": low, "high": high}
