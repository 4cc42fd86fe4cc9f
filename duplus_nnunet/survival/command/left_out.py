"""Leaves test patients, those with images in imagesTs, out of a cross-validation unless they are asked for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from duplus_nnunet.survival.command.coverage import list_images_of

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.raw_dataset import RawDataset
    from duplus_nnunet.survival.records.checking import TableReport
    from duplus_nnunet.survival.records.schema import ClinicalSchema

OPTION = "--with-test-patients"


def find_test_patients(
    report: "TableReport", schema: "ClinicalSchema", datasets: "Sequence[RawDataset]"
) -> tuple[str, ...]:
    """List the patients of a table that have images in imagesTs and none in imagesTr, in table order."""
    imaged = {
        part: {schema.find_patient(case) for raw in datasets for case in list_images_of(raw, part)}
        for part in ("imagesTr", "imagesTs")
    }
    test = imaged["imagesTs"] - imaged["imagesTr"]
    return tuple(record.patient for record in report.records if record.patient in test)


def leave_out_test_patients(report: "TableReport", patients: Sequence[str], keep: bool) -> "TableReport":
    """Leave out test patients, or keep them if asked for; a warning says which.

    Raises:
        DataError: All patients are test patients.
    """
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.survival.records.table import Finding, join_names

    if not patients:
        return report
    found = (
        f"{len(patients)} patient(s) have images in imagesTs only, so they are test patients: {join_names(patients)}."
    )
    if keep:
        finding = Finding("warning", f"{found} They are evaluated with the others ({OPTION}).")
        return replace(report, findings=(*report.findings, finding))
    kept = tuple(record for record in report.records if record.patient not in set(patients))
    if not kept:
        raise DataError(f"{found} No other patient is left to evaluate. Include them with {OPTION}.")
    finding = Finding("warning", f"{found} They are left out of the evaluation; include them with {OPTION}.")
    return replace(report, findings=(*report.findings, finding), records=kept)


def mention_test_patients(report: "TableReport", patients: Sequence[str]) -> "TableReport":
    """Add a note on test patients to the report on a table."""
    from duplus_nnunet.survival.records.table import Finding, join_names

    if not patients:
        return report
    text = (
        f"{len(patients)} patient(s) have images in imagesTs only: {join_names(patients)}. They are test patients, "
        f"left out of training, and of `duplus survival evaluate` unless {OPTION} is given."
    )
    return replace(report, findings=(*report.findings, Finding("note", text)))
