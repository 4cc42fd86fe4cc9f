"""Files and columns on the page of output files are those that the code writes."""

import csv
import pkgutil
import re
from dataclasses import fields

import numpy as np
import pytest

from duplus_nnunet.outputs.measures import TargetStatistics
from duplus_nnunet.outputs.statistics import StatisticsTable
from duplus_nnunet.reporting.aggregate import Aggregate
from duplus_nnunet.reporting.score_files import to_csv
from duplus_nnunet.survival.evaluation.attribution import Effect
from duplus_nnunet.survival.evaluation.importance import tabulate_importance
from duplus_nnunet.survival.evaluation.study import Study
from duplus_nnunet.survival.evaluation.validation import Predictions
from duplus_nnunet.survival.models.forecasts import Forecast
from duplus_nnunet.survival.prediction.files import write_prediction
from duplus_nnunet.survival.prediction.rows import CohortPrediction, PatientPrediction
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.outcome import Outcome
from duplus_nnunet.survival.report.files import list_curves, list_predictions
from duplus_nnunet.survival.report.validation_files import list_patients
from duplus_nnunet.survival.training.report import FoldReport, write_report

from .pages import DOCS, read_columns

STUDY = Study({}, {}, (), (365.0,), (), methods=("cox",), curve_days=(10.0,))


# Constants that hold names of files.
NAMES = [
    "adaptation.files.CARD", "adaptation.files.WEIGHTS", "data.case_table.FILE_NAME", "data.composing.record.FILE_NAME",
    "data.composing.splits.FILE_NAME", "outputs.legend.JSON_NAME", "outputs.legend.SLICER_NAME",
    "outputs.legend.SNAP_NAME", "outputs.manifest.NAME", "outputs.predicted_labels.RECORD_NAME",
    "outputs.statistics.CSV_NAME", "outputs.statistics.JSON_NAME", "prompt_registry.finding.FILE_NAME",
    "reporting.presence_files.PEAK_LOGITS_NAME", "reporting.score_files.CSV_NAME", "reporting.score_files.JSON_NAME",
    "reporting.validation.SUMMARY_NAME", "survival.command.trained_models.IMPORTANCE_NAME",
    "survival.imaging.feature_store.FEATURES_NAME", "survival.prediction.files.ABOUT_NAME",
    "survival.prediction.files.CURVES_NAME", "survival.prediction.files.EXPLANATION_NAME",
    "survival.prediction.files.PREDICTIONS_NAME", "survival.prediction.maps.FOLDER_NAME",
    "survival.models.records_model_files.MODEL_NAME", "survival.models.records_model_files.TENSORS_NAME",
    "survival.report.validation_files.PATIENTS_NAME", "survival.report.validation_files.REPORT_NAME",
    "survival.report.validation_files.VALIDATION_NAME",
    "survival.report.figures.CALIBRATION_NAME", "survival.report.figures.KAPLAN_MEIER_NAME",
    "survival.report.files.CARD_NAME", "survival.report.files.CURVES_NAME", "survival.report.files.METRICS_NAME",
    "survival.report.files.PREDICTIONS_NAME", "survival.training.checkpoint.LORA_TABLE_NAME",
    "survival.training.checkpoint.TABLE_NAME", "survival.training.progress.FIGURE_NAME",
    "survival.training.report.PREDICTIONS_NAME", "survival.training.report.REPORT_NAME",
    "trainers.training_cases.FILE_NAME",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_file_is_on_the_page(name):
    page = (DOCS / "reference" / "outputs.md").read_text(encoding="utf-8")
    file = re.escape(pkgutil.resolve_name(f"duplus_nnunet.{name}"))
    assert re.search(rf"`(?:\w+/)*{file}(?:/[\w.]+)?`", page)


def read_head(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return generalise(next(csv.reader(stream)))


def generalise(head):
    """Write D for the number of days in the name of a column."""
    return [re.sub(r"\b\d+ days", "D days", str(name)) for name in head]


def test_statistics(tmp_path):
    assert read_head(StatisticsTable().write(tmp_path)[1]) == read_columns("`statistics.csv`")
    assert read_columns("`statistics.csv`") == [field.name for field in fields(TargetStatistics)]


def test_scores():
    head = next(csv.reader(to_csv(Aggregate(2.0, {}, (), {}, {}, {})).splitlines()))
    assert head == read_columns("`scores.csv`")


@pytest.mark.parametrize("name", ["predictions.csv", "survival_curves.csv", "explanation.csv"])
def test_predictions_of_new_patients(tmp_path, name):
    effects: tuple[Effect, ...] = ()
    patient = PatientPrediction("a", 0.0, (0.5,), (0.5,), None, "", (), 0, (), 20.0, "seen", 5.0)
    write_prediction(CohortPrediction((patient,), (365.0,), (10.0,), effects=effects), {}, tmp_path)
    page = f"`{name}`" if name == "explanation.csv" else f"`{name}` of new patients"
    assert read_head(tmp_path / name) == read_columns(page)


def test_predictions_of_a_validation():
    predictions = Predictions(
        Outcome(np.zeros(0, bool), np.zeros(0)), (), np.zeros(0), (365.0,), np.zeros((0, 1)), np.zeros(2),
        np.zeros((0, 2)), (),
    )  # fmt: skip
    assert generalise(next(list_patients(predictions))) == read_columns("`validation_predictions.csv`")


def test_predictions_of_an_evaluation():
    assert generalise(next(list_predictions(STUDY))) == read_columns("`predictions.csv` of an evaluation")


def test_curves_of_an_evaluation():
    assert generalise(next(list_curves(STUDY))) == read_columns("`survival_curves.csv` of an evaluation")


def test_importance():
    assert tabulate_importance([])[0] == read_columns("`importance.csv`")


def test_predictions_of_a_fold(tmp_path):
    forecast = Forecast(np.zeros(0), np.zeros((0, 1)))
    report = FoldReport("Dataset001_A", "all", (), False, (365.0,), forecast, FeatureTable((), (), (), {}), {})
    assert read_head(write_report(report, tmp_path)[0]) == read_columns("`validation/predictions.csv` of a prognosis")
