"""Lists the images of the datasets of a clinical table, and the patients that one kind of image is missing of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duplus_nnunet.prompt_registry.raw_dataset import RawDataset
    from duplus_nnunet.survival.records.checking import TableReport
    from duplus_nnunet.survival.records.schema import ClinicalSchema


def list_cases(datasets: "Sequence[RawDataset]") -> list[str]:
    """List the cases of all datasets with an image in imagesTr or imagesTs.

    Raises:
        DataError: A dataset has none.
    """
    return sorted({case for cases in group_cases(datasets).values() for case in cases})


def group_cases(datasets: "Sequence[RawDataset]") -> dict[str, list[str]]:
    """List the cases with an image in imagesTr or imagesTs by dataset, of a composed one by context.

    Raises:
        DataError: A dataset has none.
    """
    groups: dict[str, list[str]] = {}
    for raw in datasets:
        for name, cases in _group(raw, _list_identifiers(raw)).items():
            groups.setdefault(name, []).extend(cases)
    return groups


def _list_identifiers(raw: "RawDataset") -> list[str]:
    from duplus_nnunet.errors import DataError
    from duplus_nnunet.prompt_registry.raw_dataset import require_file_ending

    identifiers = {case for part in ("imagesTr", "imagesTs") for case in list_images_of(raw, part)}
    if not identifiers:
        ending = require_file_ending(raw.dataset_json, raw.folder / "dataset.json")
        raise DataError(f"{raw.folder} has no image *_0000{ending} in imagesTr or imagesTs. Add the images.")
    return sorted(identifiers)


def list_images_of(raw: "RawDataset", part: str) -> list[str]:
    """List the cases with an image in one folder of a dataset: imagesTr or imagesTs."""
    from duplus_nnunet.prompt_registry.raw_dataset import list_images, require_file_ending

    ending = require_file_ending(raw.dataset_json, raw.folder / "dataset.json")
    images = list_images(raw.folder / part, ending, skip_unnumbered=True)
    return [case for case, channels in images.items() if 0 in channels]


def _group(raw: "RawDataset", identifiers: Sequence[str]) -> dict[str, list[str]]:
    from duplus_nnunet.data.case_table import read_case_table
    from duplus_nnunet.prompt_registry.dataset_labels import channel_names

    table = read_case_table(raw.folder)
    contexts = {} if table is None else {name: source.context for name, source in table.sources.items()}
    known = {} if table is None else {**table.cases, **table.tests}
    groups: dict[str, list[str]] = {}
    for identifier in identifiers:
        case = known.get(identifier)
        kind = ", ".join(channel_names(raw.dataset_json)) if case is None else contexts[case.source]
        groups.setdefault(f"{raw.name} ({kind})", []).append(identifier)
    return groups


def add_coverage(report: "TableReport", schema: "ClinicalSchema", groups: Mapping[str, Sequence[str]]) -> "TableReport":
    """Add a warning for each group of images, if there are several, that patients of the table are missing from.

    Args:
        report: Report on the table.
        schema: Finds the patient of a case.
        groups: Case identifiers by name of the group.
    """
    from duplus_nnunet.survival.records.table import Finding, join_names

    patients = [record.patient for record in report.records]
    warnings = []
    for name, cases in groups.items() if len(groups) > 1 else ():
        imaged = {schema.find_patient(case) for case in cases}
        missing = [patient for patient in patients if patient not in imaged]
        if missing:
            text = f"{name}: {len(missing)} of {len(patients)} patients have no such image: {join_names(missing)}."
            warnings.append(Finding("warning", f"{text} It counts as missing."))
    end = sum(finding.severity != "note" for finding in report.findings)
    return replace(report, findings=(*report.findings[:end], *warnings, *report.findings[end:]))
