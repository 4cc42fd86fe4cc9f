"""Predicts new patients by the folds of a model folder, from images, a clinical table, or both.

Outcomes of the patients are not needed.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import require_writable
from duplus_nnunet.inference.reading import report_failure
from duplus_nnunet.locks import hold
from duplus_nnunet.outputs.manifest import list_versions
from duplus_nnunet.survival.evaluation.attribution import Effect, explain
from duplus_nnunet.survival.models.averaging import average, choose_curve, choose_new_horizons, find_follow_up
from duplus_nnunet.survival.models.forecasts import merge_notes
from duplus_nnunet.survival.prediction.files import write_prediction
from duplus_nnunet.survival.prediction.images import DicomChoice, Features, ImageNetworks, NewImage, list_new_images
from duplus_nnunet.survival.prediction.maps import FOLDER_NAME, Mapper, Occlusion
from duplus_nnunet.survival.prediction.rows import CohortPrediction, ImageSummary, list_patient_predictions
from duplus_nnunet.survival.prediction.trained_model import PrognosisModel, read_trained_model
from duplus_nnunet.survival.records.new_patients import NewPatients, read_new_patients
from duplus_nnunet.survival.records.other_tables import read_other_table


@dataclass(frozen=True)
class Request:
    """Input and options of a prediction.

    Attributes:
        model: Model folder.
        output: Output folder.
        images: Folder of images named in nnU-Net's format; None: no images.
        clinical: Clinical table; None: no table.
        folds: nnU-Net's names of the folds; empty: all finished folds.
        context: Context of the images, or a table of contexts; None: the only context of the model.
        horizons: Days at which survival is reported; empty: chosen from the follow-up.
        device: Device of the networks.
        explain: Settings of occlusion maps, if effects of inputs are requested; None: not requested.
        dicom: What is read where the folder of images holds DICOM.
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
    dicom: DicomChoice = field(default_factory=DicomChoice)


@dataclass(frozen=True)
class Answer:
    """Result of a prediction.

    Attributes:
        prediction: Predictions for all patients.
        files: Files written.
        failures: Reasons why images could not be used, or have no occlusion map, by case.
        imaged: Patients with an image in the folder of images.
    """

    prediction: CohortPrediction
    files: tuple[Path, ...]
    failures: dict[str, str]
    imaged: frozenset[str] = frozenset()


def predict_patients(request: Request) -> Answer:
    """Predict patients and write the predictions.

    Raises:
        DataError: There are no inputs, inputs do not match, the output folder is unusable, or another process predicts
            into it.
        ModelError: The folder has no finished survival model.
    """
    _check(request)
    with hold(request.output, "predicting into", "Wait until it ends, or choose another folder with -o."):
        return _predict(request)


def _predict(request: Request) -> Answer:
    model = read_trained_model(request.model, request.folds)
    horizons = np.array(choose_new_horizons(model.models, request.horizons))
    images = list_new_images(model, request.images, request.context, request.dicom) if request.images else []
    imaged = {image.patient for image in images if image.patient}
    # Before images are read, which takes long.
    table = read_other_table(request.clinical, model.schema) if request.clinical else None
    cells, schema, remarks = (table.rows, table.schema, table.notes) if table else (None, model.schema, ())
    patients = read_new_patients(cells, schema, imaged, remarks)
    networks = ImageNetworks(model, request.device) if images else None
    features = Features([None] * len(model.folds)) if networks is None else networks.read(images)
    patients = _leave_out_unknown(patients, features)
    _report_failures(features.failures)
    days = choose_curve(model.models)
    averages = average(model.models, patients.records, features.tables, np.concatenate([horizons, days]))
    summary = ImageSummary(features.tables, _list_cases(features), _list_image_warnings(images, features))
    effects: tuple[Effect, ...] | None = None
    failures, maps = dict(features.failures), dict[str, Any]()
    if request.explain is not None:
        effects = tuple(explain(model.models, patients.records, features.tables))
        if networks is not None and request.explain.most > 0:
            settings, folder = request.explain, request.output / FOLDER_NAME
            maps = _map(Mapper(model.models, networks, features, settings, folder), patients, failures)
    rows = list_patient_predictions(model.models, patients, summary, averages, (horizons, days))
    notes = _list_notes(request, patients, averages.notes, model.schema.endpoint)
    prediction = CohortPrediction(rows, tuple(map(float, horizons)), tuple(map(float, days)), notes, failures, effects)
    about = {**_describe(request, model), "occlusion_maps": maps}
    files = write_prediction(prediction, about, request.output)
    return Answer(prediction, tuple(files), failures, frozenset(imaged))


def _check(request: Request) -> None:
    if request.images is None and request.clinical is None:
        raise DataError("There is nothing to predict from: give images (-i), a clinical table (--clinical), or both.")
    if request.images is not None and request.images.resolve() == request.output.resolve():
        raise DataError(f"The output folder is the folder of the images, {request.output}. Choose another one with -o.")
    if request.output.exists() and not request.output.is_dir():
        raise DataError(f"The output {request.output} is a file; expected a folder (-o).")
    require_writable(request.output)


def _leave_out_unknown(patients: NewPatients, features: Features) -> NewPatients:
    """Leave out patients without a record whose images could not be used.

    Raises:
        DataError: No patient is left.
    """
    read = {image.patient for image in features.images}
    kept = tuple(record for record in patients.records if record.patient in patients.listed or record.patient in read)
    if not kept:
        reasons = "; ".join(f"{case}: {reason}" for case, reason in features.failures.items())
        raise DataError(f"No patient can be predicted: no image could be used, and there are no records. {reasons}")
    return replace(patients, records=kept)


def _report_failures(failures: dict[str, str]) -> None:
    for case, reason in failures.items():
        sys.stderr.write(f"failed: {case}: {reason}\n")


def _list_cases(features: Features) -> dict[str, tuple[str, ...]]:
    cases: dict[str, tuple[str, ...]] = {}
    for image in features.images:
        cases[image.patient] = (*cases.get(image.patient, ()), image.source.name)
    return cases


def _list_image_warnings(images: Sequence[NewImage], features: Features) -> dict[str, tuple[str, ...]]:
    warnings: dict[str, tuple[str, ...]] = {}
    for image in images:
        case = image.source.name
        texts = tuple(f"{case}: {text}" for text in features.warnings.get(case, ()))
        if case in features.failures:
            texts = (f"the image {case} could not be used",)
        warnings[image.patient] = (*warnings.get(image.patient, ()), *texts)
    return warnings


def _map(mapper: Mapper, patients: NewPatients, failures: dict[str, str]) -> dict[str, Any]:
    """Write all occlusion maps; a failure of one is reported and does not stop the others."""
    records = {record.patient: record for record in patients.records}
    images, made = mapper.features.images, {}
    for number, (image, item) in enumerate(zip(images, mapper.networks.read_items(images), strict=True), 1):
        sys.stderr.write(f"occlusion map {number} of {len(images)}: {image.source.name}\n")
        try:
            made[image.source.name] = mapper.write(image, item, records[image.patient])
        except Exception as error:  # a failure of one case must not stop the others
            failures[image.source.name] = f"no occlusion map: {report_failure(error)}"
            _report_failures({image.source.name: failures[image.source.name]})
    return made


def _list_notes(request: Request, patients: NewPatients, notes: Sequence[str], endpoint: str | None) -> tuple[str, ...]:
    missing = [] if endpoint is None else [f"The endpoint is {endpoint!r}."]
    missing += [] if request.clinical else ["There is no clinical table: predictions use images alone."]
    missing += [] if request.images else ["There are no images: predictions use clinical records alone."]
    return merge_notes((*missing, *patients.notes, *notes))


def _describe(request: Request, model: PrognosisModel) -> dict[str, Any]:
    folds = [
        {"fold": fold.name, "sha256": fold.checksum, "trained_on": len(fold.patients), "lora": fold.lora is not None}
        for fold in model.folds
    ]
    notes = merge_notes(note for fold in model.folds for note in (*fold.notes, *fold.model.notes))
    return {
        "model": request.model.resolve().name,
        "endpoint": model.schema.endpoint,
        "folds": folds,
        "versions": list_versions(),
        "device": str(request.device),
        "follow_up_days": find_follow_up(model.models),
        "notes_of_the_training": list(notes),
    }
