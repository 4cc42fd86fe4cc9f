"""Reads the clinical data of a dataset and splits its patients into training and held-out patients.

Patients with images in imagesTs are test patients: neither their images nor their records are used in training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry.raw_dataset import list_images, open_raw_dataset
from duplus_nnunet.survival.imaging.feature_store import ImagedCase
from duplus_nnunet.survival.records.checking import check
from duplus_nnunet.survival.records.folds import make_folds
from duplus_nnunet.survival.records.joined_tables import read_clinical
from duplus_nnunet.survival.records.schema import SCHEMA_NAME, TABLE_NAME, ClinicalSchema
from duplus_nnunet.survival.records.table import SEEN, Record

_INNER = 5
# At least one event in the inner held-out patients, and two in the inner training patients.
_LEAST_EVENTS = 3


@dataclass(frozen=True)
class ClinicalData:
    """Clinical data of a dataset.

    Attributes:
        records: Records by patient, without test patients.
        schema: Meaning of the columns.
        table: All cases of the dataset.
        notes: Remarks for the reader, one sentence each.
    """

    records: Mapping[str, Record]
    schema: ClinicalSchema
    table: CaseTable
    notes: tuple[str, ...]

    def find_patient(self, case: str) -> str | None:
        """Return the patient ID of a case; None if the patient has no record."""
        patient = self.schema.find_patient(case)
        return patient if patient in self.records else None

    def list_images(self, cases: Sequence[str]) -> list[ImagedCase]:
        """List the cases whose patient has a record."""
        patients = {case: self.find_patient(case) for case in sorted(set(cases))}
        sources = self.table.sources
        return [
            ImagedCase(case, patient, sources[self.table.find(case).source].context)
            for case, patient in patients.items()
            if patient is not None
        ]


def read_clinical_data(dataset: str, table: CaseTable, endpoint: str | None = None) -> ClinicalData:
    """Read and check the clinical table of a raw dataset.

    Args:
        dataset: nnU-Net's name of the dataset.
        table: Cases of the dataset.
        endpoint: Name of the endpoint; None: the only one.

    Raises:
        DataError: Files are missing, or the table has errors.
    """
    raw = open_raw_dataset(dataset)
    rows, schema = read_clinical(raw.folder / TABLE_NAME, raw.folder / SCHEMA_NAME, endpoint)
    tests = sorted({*table.tests, *_list_tests(raw.folder, str(raw.dataset_json.get("file_ending")))})
    report = check(rows, schema, sorted({*table.cases, *tests}))
    errors = [finding.text for finding in report.findings if finding.severity == "error"]
    if errors:
        raise DataError(
            f"{raw.folder / TABLE_NAME} cannot be used: {' '.join(errors)} Run `duplus survival check` for the full "
            "report."
        )
    held = {schema.find_patient(case) for case in tests}
    training = {schema.find_patient(case) for case in table.cases}
    both = sorted(str(patient) for patient in held & training if patient is not None)
    if both:
        raise DataError(
            f"Patient {both[0]!r} has images in imagesTr as well as in imagesTs ({len(both)} such patients); expected "
            "all images of a patient in one of them. Move the images, or correct the pattern `cases` in clinical.yaml."
        )
    records = {record.patient: record for record in sorted(report.records, key=lambda record: record.patient)}
    test_patients = [patient for patient in records if patient in held]
    notes = [finding.text for finding in report.findings if finding.severity == "warning"]
    if test_patients:
        notes.append(
            f"{len(test_patients)} patient(s) have images in imagesTs and are left out of training as test patients."
        )
    kept = {name: record for name, record in records.items() if name not in held}
    return ClinicalData(kept, schema, table, tuple(notes))


def _list_tests(folder: Path, ending: str) -> list[str]:
    images = list_images(folder / "imagesTs", ending, skip_unnumbered=True)
    return [case for case, channels in images.items() if 0 in channels]


@dataclass(frozen=True)
class FoldPatients:
    """Patients of a fold.

    Attributes:
        train: Records of the training patients.
        held_out: Records of the held-out patients; empty for the fold "all".
    """

    train: tuple[Record, ...]
    held_out: tuple[Record, ...]


def split_patients(
    clinic: ClinicalData, training: Sequence[str], validation: Sequence[str], fold: int | str
) -> FoldPatients:
    """Hold out the patients of nnU-Net's validation cases; all others, with or without images, are for training.

    Args:
        clinic: Clinical data.
        training: nnU-Net's training cases of the fold.
        validation: nnU-Net's validation cases of the fold.
        fold: nnU-Net's fold.

    Raises:
        DataError: A patient has training and validation cases, or either side has no patient.
    """
    records = clinic.records
    if fold == "all":
        return FoldPatients(tuple(records.values()), ())
    sides = [{clinic.find_patient(case) for case in cases} - {None} for cases in (training, validation)]
    both = sorted(str(patient) for patient in sides[0] & sides[1])
    if both:
        raise DataError(
            f"Fold {fold} holds out some images of patient {both[0]!r} and trains on others ({len(both)} such "
            "patients). Split by patient: remove splits_final.json and run `duplus survival split DATASET`."
        )
    held = tuple(record for name, record in records.items() if name in sides[1])
    train = tuple(record for name, record in records.items() if name not in sides[1])
    if not held or not train:
        raise DataError(
            f"Fold {fold} has {len(held)} held-out and {len(train)} training patients with a record; expected one or "
            "more of each. Draw folds with `duplus survival split DATASET`."
        )
    return FoldPatients(train, held)


def list_names(clinic: ClinicalData, cases: Sequence[str]) -> dict[str, list[str]]:
    """List all names of each patient: case identifiers, and patient IDs in the table of cases."""
    names: dict[str, list[str]] = {}
    for image in clinic.list_images(cases):
        names.setdefault(image.patient, []).extend((image.case, clinic.table.find(image.case).patient))
    return names


@dataclass(frozen=True)
class InnerSplit:
    """Inner split of the training patients of a fold, on which the second stage is evaluated.

    Attributes:
        train: Records of the inner training patients.
        held_out: Records of the inner held-out patients, which decide whether the second stage is kept.
    """

    train: tuple[Record, ...]
    held_out: tuple[Record, ...]


def part_images(images: Sequence[ImagedCase], inner: InnerSplit | None) -> tuple[list[str], list[str]]:
    """Split cases into those of inner training patients and those of inner held-out patients.

    Raises:
        DataError: A side has no case.
    """
    held = {record.patient for record in inner.held_out} if inner else set()
    training, held_out = ([image.case for image in images if (image.patient in held) == side] for side in (False, True))
    if inner and not (training and held_out):
        raise DataError(
            f"{len(training)} images of inner training patients and {len(held_out)} of inner held-out patients can be "
            "read; expected one or more of each. Preprocess the dataset again, or skip this stage: with a base, set "
            "settings.survival.lora_epochs to 0 in the plans."
        )
    return training, held_out


def split_within(records: Sequence[Record], imaged: set[str], seed: int) -> InnerSplit | None:
    """Split the training patients into inner training and inner held-out patients; None if there are too few events.

    Patients without images are never held out, as the second stage does not change their features.
    """
    with_image = [record for record in records if record.patient in imaged]
    events = sum(record.event == SEEN for record in with_image)
    if events < _LEAST_EVENTS:
        return None
    held = {with_image[row].patient for row in make_folds(with_image, min(_INNER, events), seed)[0].test}
    return InnerSplit(
        tuple(record for record in records if record.patient not in held),
        tuple(record for record in records if record.patient in held),
    )
