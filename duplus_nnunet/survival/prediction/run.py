"""Prognosis of new patients: in come a model folder, images and a clinical table, out comes a folder of tables.

Either of images and table is enough. Nothing of a prediction needs to know what became of a patient.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.reading import report_failure
from duplus_nnunet.outputs.files import require_writable
from duplus_nnunet.outputs.manifest import list_versions
from duplus_nnunet.survival.evaluation.attribution import Effect, explain
from duplus_nnunet.survival.models.averaging import average, choose_curve, choose_new_horizons, find_follow_up
from duplus_nnunet.survival.models.forecasts import merge_notes
from duplus_nnunet.survival.prediction.files import write_prediction
from duplus_nnunet.survival.prediction.images import Features, ImageNetworks, NewImage, list_images
from duplus_nnunet.survival.prediction.maps import FOLDER_NAME, Mapper, Occlusion
from duplus_nnunet.survival.prediction.rows import CohortPrediction, ImageSummary, list_patient_predictions
from duplus_nnunet.survival.prediction.trained_model import PrognosisModel, read_model
from duplus_nnunet.survival.records.new_patients import NewPatients, read_new_patients
from duplus_nnunet.survival.records.table import read_rows


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        model: Model folder.
        output: Folder of the answer.
        images: Folder of nnU-Net's form; None: there are none.
        clinical: Table; None: there is none.
        folds: As nnU-Net names them; empty: all that are finished.
        context: Of the images, or a table of contexts; None: the model has one only.
        horizons: Days at which survival is told; empty: chosen.
        device: Where networks run.
        explain: How maps are made, if inputs' effects are asked for.
    """

    model: Path
    output: Path
    images: Path | None = None
    clinical: Path | None = None
    folds: tuple[str, ...] = ()
    context: str | None = None
    horizons: tuple[float, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    explain: Occlusion | None = None


@dataclass(frozen=True)
class Answer:
    """What came out.

    Attributes:
        prediction: Of all patients.
        files: What was written.
        failures: Images that could not be used, or not be explained, and why.
    """

    prediction: CohortPrediction
    files: tuple[Path, ...]
    failures: dict[str, str]


def predict_survival(request: Request) -> Answer:
    """Foretell patients and write what is foretold.

    Raises:
        DataError: There is nothing to foretell, what is given does not belong together, or the output is the images'.
        ModelError: The folder holds no finished prognosis.
    """
    _check(request)
    model = read_model(request.model, request.folds)
    horizons = np.array(choose_new_horizons(model.models, request.horizons))
    images = list_images(model, request.images, request.context) if request.images else []
    imaged = {image.patient for image in images if image.patient}
    rows = read_rows(request.clinical) if request.clinical else None
    patients = read_new_patients(rows, model.schema, imaged)  # before any image is looked at, which takes long
    networks = ImageNetworks(model, request.device) if images else None
    features = Features([None] * len(model.folds)) if networks is None else networks.read(images)
    patients = _leave_out_unknown(patients, features)
    _report_failures(features.failures)
    days = choose_curve(model.models)
    found = average(model.models, patients.records, features.tables, np.concatenate([horizons, days]))
    seen = ImageSummary(features.tables, _list_cases(features), _list_image_warnings(images, features))
    effects: tuple[Effect, ...] | None = None
    failures, maps = dict(features.failures), dict[str, Any]()
    if request.explain is not None:
        effects = tuple(explain(model.models, patients.records, features.tables))
        if networks is not None and request.explain.most > 0:
            how, folder = request.explain, request.output / FOLDER_NAME
            maps = _map(Mapper(model.models, networks, features, how, folder), patients, failures)
    prediction = CohortPrediction(
        list_patient_predictions(model.models, patients, seen, found, (horizons, days)), tuple(map(float, horizons)),
        tuple(map(float, days)), _list_notes(request, patients, found.notes), failures, effects,
    )  # fmt: skip
    about = {**_describe(request, model), "occlusion_maps": maps}
    return Answer(prediction, tuple(write_prediction(prediction, about, request.output)), failures)


def _check(request: Request) -> None:
    if request.images is None and request.clinical is None:
        raise DataError("There is nothing to foretell from: give images (-i), a clinical table (--clinical), or both.")
    if request.images is not None and request.images.resolve() == request.output.resolve():
        raise DataError(f"The output folder is the images', {request.output}. Choose another one with -o.")
    if request.output.exists() and not request.output.is_dir():
        raise DataError(f"The output {request.output} is a file. Name a folder with -o.")
    require_writable(request.output)


def _leave_out_unknown(patients: NewPatients, features: Features) -> NewPatients:
    """Leave out those of whom nothing is known, as their only images failed.

    Raises:
        DataError: Nobody is left.
    """
    read = {image.patient for image in features.images}
    kept = tuple(one for one in patients.records if one.patient in patients.listed or one.patient in read)
    if not kept:
        why = "; ".join(f"{case}: {reason}" for case, reason in features.failures.items())
        raise DataError(f"Nobody can be foretold: no image could be used, and there is no record. {why}")
    return NewPatients(kept, patients.listed, patients.warnings, patients.notes)


def _report_failures(failures: dict[str, str]) -> None:
    for case, why in failures.items():
        sys.stderr.write(f"failed: {case}: {why}\n")


def _list_cases(features: Features) -> dict[str, tuple[str, ...]]:
    cases: dict[str, tuple[str, ...]] = {}
    for image in features.images:
        cases[image.patient] = (*cases.get(image.patient, ()), image.source.name)
    return cases


def _list_image_warnings(images: Sequence[NewImage], features: Features) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for image in images:
        case = image.source.name
        said = tuple(f"{case}: {text}" for text in features.warnings.get(case, ()))
        if case in features.failures:
            said = (f"the image {case} could not be used",)
        found[image.patient] = (*found.get(image.patient, ()), *said)
    return found


def _map(mapper: Mapper, patients: NewPatients, failures: dict[str, str]) -> dict[str, Any]:
    """Make all maps; one that cannot be made does not end the others."""
    records = {record.patient: record for record in patients.records}
    images, made = mapper.features.images, {}
    for image, item in zip(images, mapper.networks.read_items(images), strict=True):
        try:
            made[image.source.name] = mapper.write(image, item, records[image.patient])
        except Exception as error:  # whatever is wrong with one case, the others are worth going on
            failures[image.source.name] = f"no occlusion map: {report_failure(error)}"
            _report_failures({image.source.name: failures[image.source.name]})
    return made


def _list_notes(request: Request, patients: NewPatients, notes: Sequence[str]) -> tuple[str, ...]:
    absent = [] if request.clinical else ["There is no clinical table: images alone are used."]
    absent += [] if request.images else ["There are no images: records alone are used."]
    return merge_notes((*absent, *patients.notes, *notes))


def _describe(request: Request, model: PrognosisModel) -> dict[str, Any]:
    folds = [
        {"fold": fold.name, "sha256": fold.checksum, "trained_on": len(fold.patients), "lora": fold.lora is not None}
        for fold in model.folds
    ]
    notes = merge_notes(note for fold in model.folds for note in (*fold.notes, *fold.model.notes))
    return {
        "model": request.model.resolve().name,
        "folds": folds,
        "versions": list_versions(),
        "device": str(request.device),
        "follow_up_days": find_follow_up(model.models),
        "notes_of_the_training": list(notes),
    }
