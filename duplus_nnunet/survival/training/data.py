"""Whose prognosis is learned: in come a dataset's clinical table and nnU-Net's split, out come records and images.

A patient whose images are in imagesTs is for testing: neither images nor record are learned from.
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
from duplus_nnunet.survival.records.schema import SCHEMA_NAME, TABLE_NAME, ClinicalSchema, read_schema
from duplus_nnunet.survival.records.table import SEEN, Record, read_rows

_INNER = 5
# One event to judge by, and two to learn from.
_LEAST_EVENTS = 3


@dataclass(frozen=True)
class ClinicalData:
    """The clinical side of a dataset.

    Attributes:
        records: One a patient, but for those of test images, by patient.
        schema: What the columns mean.
        table: All cases of the dataset.
        notes: What a reader has to know, a sentence each.
    """

    records: Mapping[str, Record]
    schema: ClinicalSchema
    table: CaseTable
    notes: tuple[str, ...]

    def find_patient(self, case: str) -> str | None:
        """Return the patient of a case as the clinical table calls them; None if it does not know them."""
        found = self.schema.find_patient(case)
        return found if found in self.records else None

    def list_images(self, cases: Sequence[str]) -> list[ImagedCase]:
        """List those of some cases whose patient has a record."""
        found = {case: self.find_patient(case) for case in sorted(set(cases))}
        sources = self.table.sources
        return [
            ImagedCase(case, patient, sources[self.table.find(case).source].context)
            for case, patient in found.items()
            if patient is not None
        ]


def read_clinical_data(dataset: str, table: CaseTable) -> ClinicalData:
    """Read and check the clinical table of a raw dataset.

    Args:
        dataset: nnU-Net's name.
        table: Its cases.

    Raises:
        DataError: Files are missing, or the table cannot be learned from.
    """
    raw = open_raw_dataset(dataset)
    rows, schema = read_rows(raw.folder / TABLE_NAME), read_schema(raw.folder / SCHEMA_NAME)
    tests = sorted({*table.tests, *_list_tests(raw.folder, str(raw.dataset_json.get("file_ending")))})
    report = check(rows, schema, sorted({*table.cases, *tests}))
    errors = [finding.text for finding in report.findings if finding.severity == "error"]
    if errors:
        raise DataError(
            f"{raw.folder / TABLE_NAME} cannot be learned from: {' '.join(errors)} `duplus survival check` says all "
            "that is to say of it."
        )
    held = {schema.find_patient(case) for case in tests}
    trained = {schema.find_patient(case) for case in table.cases}
    both = sorted(str(patient) for patient in held & trained if patient is not None)
    if both:
        raise DataError(
            f"Patient {both[0]!r} has training images as well as test images ({len(both)} in all); a patient stands on "
            "one side. Move their images, or correct the pattern `cases` in the schema."
        )
    records = {record.patient: record for record in sorted(report.records, key=lambda one: one.patient)}
    left = [patient for patient in records if patient in held]
    notes = [finding.text for finding in report.findings if finding.severity == "warning"]
    if left:
        notes.append(f"{len(left)} patient(s) have images in imagesTs: they are for testing, and left out of training.")
    return ClinicalData({name: one for name, one in records.items() if name not in held}, schema, table, tuple(notes))


def _list_tests(folder: Path, ending: str) -> list[str]:
    images = list_images(folder / "imagesTs", ending, skip_unnumbered=True)
    return [case for case, channels in images.items() if 0 in channels]


@dataclass(frozen=True)
class FoldPatients:
    """The patients of a fold.

    Attributes:
        train: Records to learn from.
        held_out: Records that are held out; of the fold "all", nobody is.
    """

    train: tuple[Record, ...]
    held_out: tuple[Record, ...]


def split_patients(
    clinic: ClinicalData, training: Sequence[str], validation: Sequence[str], fold: int | str
) -> FoldPatients:
    """Hold out the patients whose cases nnU-Net holds out; all others, imaged or not, are learned from.

    Args:
        clinic: All records.
        training: nnU-Net's training cases of the fold.
        validation: nnU-Net's validation cases.
        fold: nnU-Net's.

    Raises:
        DataError: A patient is on both sides, or nobody is held out or left.
    """
    records = clinic.records
    if fold == "all":
        return FoldPatients(tuple(records.values()), ())
    sides = [{clinic.find_patient(case) for case in cases} - {None} for cases in (training, validation)]
    both = sorted(str(patient) for patient in sides[0] & sides[1])
    if both:
        raise DataError(
            f"Fold {fold} holds out some images of patient {both[0]!r} and trains on others ({len(both)} such "
            "patients). Split by patient: take splits_final.json away and run `duplus survival split DATASET`."
        )
    held = tuple(record for name, record in records.items() if name in sides[1])
    train = tuple(record for name, record in records.items() if name not in sides[1])
    if not held or not train:
        raise DataError(
            f"Fold {fold} holds out {len(held)} patients with a record and leaves {len(train)} to learn from; expected "
            "some of each. Make splits by `duplus survival split DATASET`."
        )
    return FoldPatients(train, held)


def list_names(clinic: ClinicalData, cases: Sequence[str]) -> dict[str, list[str]]:
    """List, by patient, all names that they go by: cases, and patients as the table of cases has them."""
    names: dict[str, list[str]] = {}
    for image in clinic.list_images(cases):
        names.setdefault(image.patient, []).extend((image.case, clinic.table.find(image.case).patient))
    return names


@dataclass(frozen=True)
class InnerSplit:
    """A split of a fold's training patients, by which the second stage is judged.

    Attributes:
        train: Records that it learns from.
        held_out: Records that say whether it gained.
    """

    train: tuple[Record, ...]
    held_out: tuple[Record, ...]


def part_images(images: Sequence[ImagedCase], inner: InnerSplit | None) -> tuple[list[str], list[str]]:
    """List the cases that are learned from, and those of patients that the inner split holds out.

    Raises:
        DataError: There are none on a side.
    """
    held = {record.patient for record in inner.held_out} if inner else set()
    learned, judged = ([image.case for image in images if (image.patient in held) == side] for side in (False, True))
    if inner and not (learned and judged):
        raise DataError(
            f"{len(learned)} images of inner training patients and {len(judged)} of inner held-out ones can be read; "
            "expected some of each. Preprocess the dataset again; with a base, settings.survival.lora_epochs 0 in the "
            "plans does without them."
        )
    return learned, judged


def split_within(records: Sequence[Record], imaged: set[str], seed: int) -> InnerSplit | None:
    """Split training patients once more; None if there are too few with images and the event for that.

    Those without images are learned from, and judge nothing: their features are the same in both stages.
    """
    there = [record for record in records if record.patient in imaged]
    events = sum(record.event == SEEN for record in there)
    if events < _LEAST_EVENTS:
        return None
    held = {there[place].patient for place in make_folds(there, min(_INNER, events), seed)[0].test}
    return InnerSplit(
        tuple(record for record in records if record.patient not in held),
        tuple(record for record in records if record.patient in held),
    )
