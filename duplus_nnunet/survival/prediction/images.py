"""Images of new patients as features: in come image files, out comes a table of each fold, as in training.

A case is preprocessed once, and looked at once by each network; folds on the same network share what it saw. A bad case
is reported and does not end the others.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from duplus_nnunet.inference.contexts import ContextChoice, read_contexts
from duplus_nnunet.inference.images import list_folder
from duplus_nnunet.inference.reading import InputCase, PreparedCase, Reader, read_ahead, report_failure
from duplus_nnunet.prompt_registry.raw_dataset import read_dataset_json
from duplus_nnunet.settings import PLANS_KEY
from duplus_nnunet.survival.imaging.feature_store import ImagedCase, join, make_key
from duplus_nnunet.survival.imaging.image_features import FeatureReader, Row
from duplus_nnunet.survival.prediction.trained_model import PrognosisModel, open_reader, read_bank
from duplus_nnunet.survival.records.feature_table import FeatureTable


@dataclass(frozen=True)
class NewImage:
    """One case.

    Attributes:
        source: Its files and context.
        patient: Who was imaged; empty: the schema's pattern does not find out.
    """

    source: InputCase
    patient: str

    @property
    def imaged(self) -> ImagedCase:
        """The case as a table of features knows it."""
        return ImagedCase(self.source.name, self.patient, self.source.context)


@dataclass
class Features:
    """What was read off all cases.

    Attributes:
        tables: One a fold; None: no image could be read.
        images: Those that were read.
        failures: Why others were not, by case.
        warnings: Of preprocessing, by case.
        rows: Numbers of each case, by network and case.
        keys: The network of each fold.
    """

    tables: list[FeatureTable | None]
    images: list[NewImage] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[str, dict[str, Row]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


def list_images(model: PrognosisModel, folder: Path, context: str | None) -> list[NewImage]:
    """List the cases of a folder of nnU-Net's form (CASE_0000.nii.gz).

    Args:
        model: Whose schema finds the patient in a case identifier.
        folder: With the images.
        context: A context, or a table of contexts by case; None: the model has one only.

    Raises:
        DataError: There is no image, or a table of contexts lacks a case.
        PromptError: The context is not known, or was not named though there are several.
    """
    from duplus_nnunet.planners.preprocessor import read_identifier

    bank, ending = read_bank(model.folder), str(read_dataset_json(model.folder / "dataset.json")["file_ending"])
    files = list_folder(folder, ending)
    choice = read_contexts(context, list(bank.contexts)) if context else ContextChoice(bank.require_context(None))
    names = [read_identifier(one[0], ending) for one in files]
    warning = choice.check_cases(names)
    if warning:
        sys.stderr.write(f"warning: {warning}\n")
    return [
        NewImage(InputCase(name, tuple(own), None, choice.of(name)), model.schema.find_patient(name) or "")
        for name, own in zip(names, files, strict=True)
    ]


class ImageNetworks:
    """The networks of all folds, each built once.

    Args:
        model: Whose.
        device: Where they run.
    """

    def __init__(self, model: PrognosisModel, device: torch.device) -> None:
        readers = [open_reader(model.folder, fold, device) for fold in model.folds]
        self.keys = [make_key(reader) for reader in readers]
        self.readers: dict[str, FeatureReader] = {}
        for key, reader in zip(self.keys, readers, strict=True):
            self.readers.setdefault(key, reader)
        self._host = readers[0].host

    def read_items(self, images: Sequence[NewImage]) -> Iterator[PreparedCase]:
        """Preprocess cases, one ahead."""
        host = self._host
        reader = Reader(host.plans_manager, host.configuration, host.dataset_json)
        return read_ahead(reader, [image.source for image in images])

    def read(self, images: Sequence[NewImage]) -> Features:
        """Read the features of all cases."""
        found = Features([], rows={key: {} for key in self.readers}, keys=self.keys)
        known = [image for image in images if image.patient]
        for image in images:
            if not image.patient:
                found.failures[image.source.name] = _say_pattern(image)
        bar = tqdm(self.read_items(known), total=len(known), desc="reading images", unit="case", disable=None)
        for image, item in zip(known, bar, strict=True):
            why = self._look(found, image, item)
            if why:
                found.failures[image.source.name] = why
            else:
                found.images.append(image)
        found.tables = [self.join(key, found.images, found.rows[key]) for key in self.keys]
        return found

    def _look(self, found: Features, image: NewImage, item: PreparedCase) -> str:
        """Look at one case by all networks; returns why it cannot be, if so."""
        if item.error:
            return item.error
        context = image.source.context
        try:
            rows = {key: reader.read(item.data, context) for key, reader in self.readers.items()}
        except Exception as error:  # whatever is wrong with one case, the others are worth going on
            return report_failure(error)
        for key, row in rows.items():
            found.rows[key][image.source.name] = row
        found.warnings[image.source.name] = tuple(item.properties.get(PLANS_KEY, {}).get("warnings", ()))
        return ""

    def join(self, key: str, images: Sequence[NewImage], rows: Mapping[str, Row]) -> FeatureTable | None:
        """Make a table by patient of what a network saw."""
        if not images:
            return None
        stamped: dict[str, tuple[str, Any]] = {case: ("", row) for case, row in rows.items()}
        return join(self.readers[key], [image.imaged for image in images], stamped)


def _say_pattern(image: NewImage) -> str:
    return (
        "the pattern `cases` of the clinical.yaml that the model was trained with finds no patient in the case "
        f"identifier {image.source.name!r}. Rename the image as the training images were named."
    )
