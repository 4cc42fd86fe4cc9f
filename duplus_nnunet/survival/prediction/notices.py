"""Sums up the warnings of a prediction for the terminal; the table of predictions has those of every patient."""

from collections.abc import Collection, Iterator, Sequence

from duplus_nnunet.survival.prediction.files import PREDICTIONS_NAME
from duplus_nnunet.survival.prediction.rows import PatientPrediction
from duplus_nnunet.survival.records.table import join_names


def list_notices(rows: Sequence[PatientPrediction], imaged: Collection[str]) -> Iterator[str]:
    """List each warning once, with its patients.

    Args:
        rows: Predictions of all patients.
        imaged: Patients with an image in the folder of images. If there are any, warnings of the other patients of the
            table are counted in one line; otherwise all warnings are listed.
    """
    asked = [row for row in rows if not imaged or row.patient in imaged]
    patients: dict[str, list[str]] = {}
    for row in asked:
        for warning in row.warnings:
            patients.setdefault(warning, []).append(row.patient)
    for warning, names in patients.items():
        yield f"warning: {f'{len(names)} patients ({join_names(names)})' if len(names) > 1 else names[0]}: {warning}"
    others = [row.patient for row in rows if imaged and row.patient not in imaged]
    if others:
        yield (
            f"note: {len(others)} patient(s) of the table have no image in the folder and are predicted from their "
            f"records alone: {join_names(others)}. Their warnings are in {PREDICTIONS_NAME} only."
        )
