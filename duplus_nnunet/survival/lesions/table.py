"""Exports measurements of lesions of a raw dataset as a table, one row a patient."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.grids import find_difference
from duplus_nnunet.data.label_maps import read_label_map
from duplus_nnunet.data.raw_dataset_files import choose_reader
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.prompt_registry.dataset_labels import channel_names, foreground_labels
from duplus_nnunet.prompt_registry.names import is_lesion, is_pet
from duplus_nnunet.prompt_registry.raw_dataset import RawDataset, list_images, require_file_ending
from duplus_nnunet.reporting.predicted_values import find_predicted_values, read_region
from duplus_nnunet.survival.lesions.ibsi import compute_ibsi
from duplus_nnunet.survival.lesions.measures import LesionShapes, Mask, Threshold, measure_shapes, measure_uptake
from duplus_nnunet.survival.records.schema import SCHEMA_NAME, ClinicalSchema, read_schemas

TOGETHER = "all lesions"
_PRIMARY = ("gtvp", "gtvt", "primary")


@dataclass(frozen=True)
class FeatureChoice:
    """What is measured.

    Attributes:
        targets: Labels of the lesions; empty: those whose names are of lesions.
        primary: Label of the primary tumour, from which distances are measured; empty: the one named so, if any.
        pet: Number of the PET channel; None: the one named so, if any.
        predictions: Folder of predicted label maps; None: the reference masks in labelsTr.
        threshold: Lowest uptake in the metabolic volume; None: the whole mask.
        ibsi: Whether IBSI features are computed by MIRP.
    """

    targets: tuple[str, ...] = ()
    primary: str = ""
    pet: int | None = None
    predictions: Path | None = None
    threshold: Threshold | None = None
    ibsi: bool = False


@dataclass(frozen=True)
class FeatureRows:
    """The table.

    Attributes:
        columns: Headings, with units.
        rows: Values of each patient; NaN: not defined.
        left_out: Cases without a label map.
        notes: What was chosen, a sentence each.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[float]]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_csv(self, identifier: str) -> Iterator[list[object]]:
        """List the rows for a CSV file, heading first; the first column is the patient."""
        yield [identifier, *self.columns]
        for patient, values in self.rows.items():
            yield [patient, *(None if math.isnan(value) else float(f"{value:.6g}") for value in values)]


@dataclass(frozen=True)
class _Plan:
    """What is read of each case."""

    regions: Mapping[str, tuple[int, ...]]
    primary: str
    pet: int | None
    reader: type
    known: frozenset[int]
    choice: FeatureChoice
    names: Sequence[str] = field(default=())


def measure_dataset(raw: RawDataset, choice: FeatureChoice) -> FeatureRows:
    """Measure the lesions of all cases of a raw dataset that have a label map.

    Raises:
        DataError: A target, channel or folder does not exist, no target is a lesion, two cases belong to one patient, a
            grid differs, or a file cannot be read.
    """
    plan = _make_plan(raw, choice)
    cases = _list_cases(raw, choice)
    left_out = tuple(case for case, (_, label) in cases.items() if not label.is_file())
    patients = _name_patients(raw, [case for case in cases if case not in left_out])
    rows: dict[str, dict[str, float]] = {}
    for case, patient in patients.items():
        rows[patient] = _measure_case(case, *cases[case], plan)
    columns = tuple(dict.fromkeys(name for row in rows.values() for name in row))
    values = {patient: [row.get(name, math.nan) for name in columns] for patient, row in rows.items()}
    return FeatureRows(columns, values, left_out, tuple(_describe(raw, plan)))


def read_identifier(raw: RawDataset) -> str:
    """Return the name of the patient column of the clinical table; "patient" without a schema."""
    schema = _read_schema(raw)
    return "patient" if schema is None else schema.patient


def _read_schema(raw: RawDataset) -> ClinicalSchema | None:
    """Read a schema of the dataset, if it has one; patients are the same in those of all endpoints."""
    file = raw.folder / SCHEMA_NAME
    return next(iter(read_schemas(file).values())) if file.is_file() else None


def measure_targets(
    masks: Mapping[str, Mask], pet: NDArray[Any] | None, spacing: Sequence[float], primary: str, choice: FeatureChoice
) -> dict[str, float]:
    """Measure each target, and all together, by heading.

    Args:
        masks: Mask of each target, (D, H, W).
        pet: PET image in SUV of the same shape; None: none.
        spacing: Voxel size in mm.
        primary: Target from which distances are measured; empty: none.
        choice: Threshold, and whether IBSI features are computed.
    """
    parts = dict(masks)
    if len(masks) > 1:
        parts[TOGETHER] = np.logical_or.reduce(list(masks.values()))
    shapes = {name: measure_shapes(mask, spacing) for name, mask in masks.items()}
    if len(masks) > 1:
        # Lesions of different targets that touch stay two, and a region within another one is no further lesion.
        shapes[TOGETHER] = _join([measure_shapes(mask, spacing) for mask in _merge_overlapping(list(masks.values()))])
    row: dict[str, float] = {}
    for name, mask in parts.items():
        row |= _list_shapes(name, shapes[name])
        if primary and name not in (primary, TOGETHER):
            distance = shapes[name].measure_distance_from(shapes[primary])
            row[f"{name}: largest distance from {primary} (mm)"] = distance
        if pet is not None:
            row |= _list_uptake(name, mask, pet, spacing, choice.threshold)
        if choice.ibsi and pet is not None and mask.any():
            row |= {f"{name}: {key}": value for key, value in compute_ibsi(mask, pet, spacing).items()}
    return row


def _merge_overlapping(masks: Sequence[Mask]) -> list[Mask]:
    """Merge the masks of targets that share voxels, such as a tumour and its core."""
    merged: list[Mask] = []
    for mask in masks:
        apart = [other for other in merged if not (other & mask).any()]
        sharing = [other for other in merged if (other & mask).any()]
        merged = [*apart, np.logical_or.reduce([*sharing, mask])]
    return merged


def _join(shapes: Sequence[LesionShapes]) -> LesionShapes:
    volumes = np.concatenate([part.volumes for part in shapes])
    centroids = np.concatenate([part.centroids for part in shapes])
    order = np.argsort(-volumes, kind="stable")
    return LesionShapes(volumes[order], centroids[order])


def _list_shapes(name: str, shapes: LesionShapes) -> dict[str, float]:
    return {
        f"{name}: lesions": float(len(shapes.volumes)),
        f"{name}: volume (ml)": float(shapes.volumes.sum()),
        f"{name}: largest lesion (ml)": float(shapes.volumes.max(initial=0.0)),
        f"{name}: largest distance between lesions (mm)": shapes.spread,
    }


def _list_uptake(
    name: str, mask: Mask, pet: NDArray[Any], spacing: Sequence[float], threshold: Threshold | None
) -> dict[str, float]:
    uptake = measure_uptake(mask, pet, spacing, threshold)
    empty = not mask.any()
    return {
        f"{name}: SUVmax (g/ml)": uptake.maximum,
        f"{name}: SUVmean (g/ml)": uptake.mean,
        f"{name}: SUVpeak (g/ml)": uptake.peak,
        f"{name}: MTV (ml)": 0.0 if empty else uptake.volume,
        f"{name}: TLG (g)": 0.0 if empty else uptake.glycolysis,
    }


def _make_plan(raw: RawDataset, choice: FeatureChoice) -> _Plan:
    file = raw.folder / "dataset.json"
    labels = foreground_labels(raw.dataset_json, str(file))
    for name in (*choice.targets, *([choice.primary] if choice.primary else [])):
        if name not in labels:
            raise DataError(f"{file}: {describe_unknown('label', name, labels)}")
    targets = choice.targets or tuple(name for name in labels if is_lesion(name))
    if choice.primary and choice.primary not in targets:
        targets = (choice.primary, *targets)
    if not targets:
        raise DataError(
            f"No label of {file} is named as a lesion; it has {', '.join(labels)}. Name the lesions by --targets."
        )
    primary = choice.primary or next((name for name in targets if _is_named(name, _PRIMARY)), "")
    declared = raw.dataset_json["labels"]
    values, known = dict(declared), frozenset[int]()
    if choice.predictions is not None:
        predicted = find_predicted_values(choice.predictions, None, declared, [(name, name) for name in targets])
        values |= predicted.differing
        known = predicted.known
    regions = {name: read_region(values[name]) for name in targets}
    channels = channel_names(raw.dataset_json)
    return _Plan(regions, primary, _find_pet(channels, choice, file), _find_reader(raw), known, choice, channels)


def _is_named(name: str, words: Sequence[str]) -> bool:
    return any(word in name.casefold() for word in words)


def _find_pet(channels: Sequence[str], choice: FeatureChoice, file: Path) -> int | None:
    if choice.pet is not None:
        if not 0 <= choice.pet < len(channels):
            raise DataError(f"--pet is {choice.pet}; {file} has the channels 0 to {len(channels) - 1}.")
        return choice.pet
    named = [number for number, name in enumerate(channels) if is_pet(name)]
    if len(named) > 1:
        raise DataError(f"{file} has {len(named)} channels that are named as PET. Choose one by --pet NUMBER.")
    if choice.ibsi and not named:
        raise DataError(f"{file}: no channel is named as PET, which IBSI features need (--pet NUMBER).")
    return named[0] if named else None


def _find_reader(raw: RawDataset) -> type:
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    ending = require_file_ending(raw.dataset_json, raw.folder / "dataset.json")
    reader: type = recursive_find_reader_writer_by_name(choose_reader(raw.dataset_json, ending))
    return reader


def _list_cases(raw: RawDataset, choice: FeatureChoice) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """List the image files of each case, and where its label map is expected."""
    ending = require_file_ending(raw.dataset_json, raw.folder / "dataset.json")
    if choice.predictions is not None and not choice.predictions.is_dir():
        raise DataError(f"The folder {choice.predictions} does not exist. Give a folder of label maps CASE{ending}.")
    parts = ("imagesTr",) if choice.predictions is None else ("imagesTr", "imagesTs")
    labels = raw.folder / "labelsTr" if choice.predictions is None else choice.predictions
    cases = {}
    for part in parts:
        for case, files in list_images(raw.folder / part, ending, skip_unnumbered=True).items():
            cases[case] = (tuple(files[number] for number in sorted(files)), labels / f"{case}{ending}")
    if choice.predictions is not None:
        cases = {case: files for case, files in cases.items() if files[1].is_file()}
    if not any(label.is_file() for _, label in cases.values()):
        raise DataError(f"{labels} has no label map CASE{ending} of an image of {raw.folder}.")
    return cases


def _name_patients(raw: RawDataset, cases: Sequence[str]) -> dict[str, str]:
    schema = _read_schema(raw)
    patients: dict[str, str] = {}
    for case in cases:
        patient = case if schema is None else schema.find_patient(case)
        if patient is None:
            raise DataError(
                f"`cases` of {raw.folder / SCHEMA_NAME} finds no patient in the case {case!r}. Correct the pattern."
            )
        if patient in patients.values():
            first = next(name for name, known in patients.items() if known == patient)
            raise DataError(
                f"The cases {first!r} and {case!r} both belong to the patient {patient!r}; expected one case a "
                "patient. Put the images of each kind into a dataset of their own."
            )
        patients[case] = patient
    return patients


def _measure_case(case: str, images: tuple[Path, ...], label: Path, plan: _Plan) -> dict[str, float]:
    if len(images) != len(plan.names):
        raise DataError(f"{case} has {len(images)} image file(s); dataset.json has {len(plan.names)} channel(s).")
    labels, properties = read_label_map(label, plan.reader, plan.known or None)
    array = labels.labels[0]
    pet = None
    if plan.pet is not None:
        image, expected = plan.reader().read_images([str(images[plan.pet])])
        difference = find_difference(properties, array.shape, expected, image.shape[1:])
        if difference is not None:
            raise DataError(f"{case}: the grids of label map and image differ: {difference}. Resample the label map.")
        pet = image[0]
    masks = {name: np.isin(array, values) for name, values in plan.regions.items()}
    try:
        return measure_targets(masks, pet, properties["spacing"], plan.primary, plan.choice)
    except DataError as error:
        raise DataError(f"{case}: {error}") from error


def _describe(raw: RawDataset, plan: _Plan) -> Iterator[str]:
    yield f"Targets: {', '.join(plan.regions)}; primary tumour: {plan.primary or 'none'}."
    if plan.pet is None:
        yield f"No channel of {raw.name} is named as PET: uptake is not measured (--pet NUMBER)."
    else:
        yield f"PET: channel {plan.pet} ({plan.names[plan.pet]})."
