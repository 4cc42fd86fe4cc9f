"""Computes the image features of new patients with the networks of all folds, as in training.

Each case is preprocessed once and read once by each network; folds with identical networks share their features. A case
that cannot be read is reported and does not stop the others.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from duplus_nnunet.inference.contexts import ContextChoice, read_contexts
from duplus_nnunet.inference.dicom_input import DicomInput, open_dicom
from duplus_nnunet.inference.images import list_folder
from duplus_nnunet.inference.reading import InputCase, PreparedCase, Reader, read_ahead, report_failure
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.progress import LOG_EVERY, follow
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.survival.imaging.feature_store import ImagedCase, join, make_key
from duplus_nnunet.survival.imaging.image_features import FeatureReader, Row
from duplus_nnunet.survival.prediction.trained_model import PrognosisModel, open_reader, read_bank
from duplus_nnunet.survival.records.feature_table import FeatureTable


@dataclass(frozen=True)
class DicomChoice:
    """What is read where the folder of images holds DICOM.

    Attributes:
        series: Which series, as in `dicom.choosing.choose_series`; None: all that can be read.
        keep_ids: Whether the patient ID of the headers is the patient of the clinical table.
    """

    series: str | None = None
    keep_ids: bool = False


@dataclass(frozen=True)
class NewImage:
    """A case of a new patient.

    Attributes:
        source: Files and context of the case.
        patient: Patient ID; empty: not found by the pattern of the schema.
    """

    source: InputCase
    patient: str

    @property
    def imaged(self) -> ImagedCase:
        """The case in the form that feature tables use."""
        return ImagedCase(self.source.name, self.patient, self.source.context)


@dataclass
class Features:
    """Image features of all cases.

    Attributes:
        tables: Features by patient, one table for each fold; None: no image could be read.
        images: Cases that were read.
        failures: Reasons why other cases could not be read, by case.
        warnings: Warnings of the preprocessing, by case.
        rows: Features by network and case.
        keys: Key of the network of each fold.
    """

    tables: list[FeatureTable | None]
    images: list[NewImage] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def list_new_images(
    model: PrognosisModel, folder: Path, context: str | None, dicom: DicomChoice | None = None
) -> list[NewImage]:
    """List the cases of a folder named in nnU-Net's format (CASE_0000.nii.gz), or the DICOM series of a folder.

    Args:
        model: Model whose schema finds the patient of a case.
        folder: Folder of the images.
        context: A context, or a table of contexts by case; None: the only context of the model, or that of the headers
            of DICOM.
        dicom: Which DICOM series are read, and whether their patient ID is that of the clinical table.

    Raises:
        DataError: There is no image, or a table of contexts lacks a case.
        PromptError: The context is unknown, or was not given and the model has several.
    """
    from duplus_nnunet.planners.preprocessor import read_identifier

    bank, ending = read_bank(model.folder), str(read_dataset_json(model.folder / "dataset.json")["file_ending"])
    wanted = dicom or DicomChoice()
    found = open_dicom(folder, wanted.series, wanted.keep_ids)
    if found is not None:
        return _list_series(model, *found.choose_contexts(bank.contexts, context), wanted.keep_ids)
    files = list_folder(folder, ending)
    choice = read_contexts(context, list(bank.contexts)) if context else ContextChoice(bank.require_context(None))
    names = [read_identifier(channels[0], ending) for channels in files]
    warning = choice.check_cases(names)
    if warning:
        sys.stderr.write(f"warning: {warning}\n")
    return [
        NewImage(InputCase(name, tuple(channels), None, choice.of(name)), model.schema.find_patient(name) or "")
        for name, channels in zip(names, files, strict=True)
    ]


def _list_series(model: PrognosisModel, found: DicomInput, choice: ContextChoice, keep_ids: bool) -> list[NewImage]:
    """List DICOM series as cases; their patient is the patient ID, or what the schema finds in the case identifier."""
    images = []
    for image in found.images:
        source = InputCase(image.name, (image.file,), None, choice.of(image.name), dicom=image)
        patient = image.series.about.patient if keep_ids else model.schema.find_patient(image.name)
        images.append(NewImage(source, patient or ""))
    return images


class ImageNetworks:
    """The networks of all folds; identical networks are built once.

    Args:
        model: The trained model.
        device: Device of the networks.
    """

    def __init__(self, model: PrognosisModel, device: torch.device) -> None:
        readers = [open_reader(model.folder, fold, device) for fold in model.folds]
        self.keys = [make_key(reader) for reader in readers]
        self.readers: dict[str, FeatureReader] = {}
        for key, reader in zip(self.keys, readers, strict=True):
            self.readers.setdefault(key, reader)
        self._host = readers[0].host

    def read_items(self, images: Sequence[NewImage]) -> Iterator[PreparedCase]:
        """Preprocess cases, one ahead of use."""
        host = self._host
        reader = Reader(host.plans_manager, host.configuration, host.dataset_json)
        return read_ahead(reader, [image.source for image in images])

    def read(self, images: Sequence[NewImage]) -> Features:
        """Compute the features of all cases."""
        features = Features([], rows={key: {} for key in self.readers}, keys=self.keys)
        known = [image for image in images if image.patient]
        for image in images:
            if not image.patient:
                features.failures[image.source.name] = _explain_pattern(image)
        with follow(len(known), "reading images", "case", LOG_EVERY) as count:
            for image, item in zip(known, self.read_items(known), strict=True):
                reason = self._read_case(features, image, item)
                image.source.forget()
                if reason:
                    features.failures[image.source.name] = reason
                else:
                    features.images.append(image)
                count()
        features.tables = [self.join(key, features.images, features.rows[key]) for key in self.keys]
        return features

    def _read_case(self, features: Features, image: NewImage, item: PreparedCase) -> str:
        """Compute the features of one case with all networks; returns the reason if that fails, else an empty text."""
        if item.error:
            return item.error
        context = image.source.context
        try:
            rows = {key: reader.read(item.data, context) for key, reader in self.readers.items()}
        except Exception as error:  # a failure of one case must not stop the others
            return report_failure(error)
        for key, row in rows.items():
            features.rows[key][image.source.name] = row
        features.warnings[image.source.name] = tuple(item.properties.get(PLANS_KEY, {}).get("warnings", ()))
        return ""

    def join(self, key: str, images: Sequence[NewImage], rows: Mapping[str, Row]) -> FeatureTable | None:
        """Return the features of a network as a table by patient; None: no image."""
        if not images:
            return None
        stamped: dict[str, tuple[str, Any]] = {case: ("", row) for case, row in rows.items()}
        return join(self.readers[key], [image.imaged for image in images], stamped)


def _explain_pattern(image: NewImage) -> str:
    return (
        "the pattern `cases` in the model's clinical.yaml finds no patient in the case identifier "
        f"{image.source.name!r}. Name the image like the training images."
    )
