"""The border by which DICOM enters a prediction: a folder or zip file of series becomes cases, and each an image file.

An image file is written when its case is read, in a temporary folder, and removed when the case is finished.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from duplus_nnunet.dicom.choosing import choose_series, describe, list_left_out, list_short, require_one
from duplus_nnunet.dicom.finding import Study, Workspace, find_series, holds_dicom
from duplus_nnunet.dicom.naming import name_case
from duplus_nnunet.dicom.proposals import fits_modality, propose_contexts
from duplus_nnunet.dicom.reading import write_image
from duplus_nnunet.dicom.series import Series
from duplus_nnunet.errors import DataError, PromptError
from duplus_nnunet.inference.contexts import ContextChoice, read_contexts
from duplus_nnunet.plans_form import PlannedContext

# Images named as nnU-Net names them; a folder that holds one is not looked through for DICOM.
_IMAGE_NAME = re.compile(r"_\d{4}\.(nii|nii\.gz|nrrd|mha|mhd|gipl|gipl\.gz|hdr|tif|tiff|png|bmp)$", re.IGNORECASE)
# nnU-Net's readers of formats that are written here.
_READERS = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")


@dataclass(frozen=True)
class DicomImage:
    """A series that is a case of a prediction.

    Attributes:
        series: The series.
        name: Identifier of the case.
        workspace: Folder of its image file.
        study: Keeps what was unpacked.
    """

    series: Series
    name: str
    workspace: Workspace = field(compare=False)
    study: Study = field(compare=False, repr=False)

    @property
    def file(self) -> str:
        """Path of its image file, which is written by `write`."""
        return str(self.workspace.folder / f"{self.series.name}_0000.nii")

    @property
    def slices(self) -> tuple[str, ...]:
        """Files of the series, in the order of the slices."""
        return tuple(map(str, self.series.files))

    @property
    def label(self) -> str:
        """What stands for the series in records: neither a path nor anything of its headers."""
        return f"DICOM series {self.series.hash}"

    def write(self) -> tuple[str, ...]:
        """Write the image file, and return what was corrected.

        Raises:
            DataError: The series cannot be read.
        """
        return write_image(self.series, Path(self.file))

    def remove(self) -> None:
        """Remove the image file."""
        Path(self.file).unlink(missing_ok=True)

    def measure(self) -> tuple[int, str]:
        """Return the size of the files of the series in bytes, and the SHA-256 of their contents.

        Raises:
            OSError: A file cannot be read.
        """
        size, digest = 0, hashlib.sha256()
        for file in self.series.files:
            content = file.read_bytes()
            size += len(content)
            digest.update(content)
        return size, digest.hexdigest()


@dataclass(frozen=True)
class DicomInput:
    """The series of a folder or zip file that are to be predicted.

    Attributes:
        source: As the user named it.
        study: What was found.
        images: Those to predict, of any modality.
        chosen: Whether the user chose them.
    """

    source: str
    study: Study = field(compare=False, repr=False)
    images: tuple[DicomImage, ...] = ()
    chosen: bool = False

    @cached_property
    def by_file(self) -> dict[str, DicomImage]:
        """Images by the path of their image file."""
        return {image.file: image for image in self.images}

    def choose_contexts(
        self, contexts: Mapping[str, PlannedContext], given: str | None
    ) -> "tuple[DicomInput, ContextChoice]":
        """Choose the context of each series, and leave out those of other modalities unless they were chosen.

        Args:
            contexts: The model's, by name.
            given: What the user named: a context, or a table; None: it is proposed from the headers.

        Raises:
            PromptError: No context, or several, are possible.
            DataError: A series is of another modality than the context that was named, or none is of a fitting one.
        """
        choice = read_contexts(given, list(contexts)) if given else None
        allowed = {choice.default: contexts[choice.default]} if choice is not None and choice.default else contexts
        kept = [one for one in self.images if any(fits_modality(one.series.modality, p) for p in allowed.values())]
        left = [one for one in self.images if one not in kept]
        if left and (self.chosen or not kept):
            raise DataError(
                f"The modality of series {describe(self.study, left[0].series)} is {left[0].series.modality}; expected "
                f"one of the contexts {_list_contexts(allowed)}. Choose another series (--series) or another context "
                "(--context)."
            )
        if left:
            listed = list_short(self.study, [image.series for image in left])
            sys.stderr.write(f"note: left out, since no context of the model is of their modality: {listed}.\n")
        kept_input = DicomInput(self.source, self.study, tuple(kept), self.chosen)
        if choice is None:
            choice = ContextChoice(None, dict(kept_input._propose(contexts)), "the DICOM headers")
        else:
            choice.check_cases([image.name for image in kept])
            kept_input._require_fitting(choice, contexts)
        return kept_input, choice

    def choose_one_context(self, contexts: Mapping[str, PlannedContext], given: str | None) -> str:
        """Choose the context of the only series, as `choose_contexts` does.

        Raises:
            PromptError: No context, or several, are possible.
            DataError: The series is of another modality than the context.
        """
        kept, choice = self.choose_contexts(contexts, given)
        return choice.of(kept.images[0].name)

    def _propose(self, contexts: Mapping[str, PlannedContext]) -> Iterator[tuple[str, str]]:
        for image in self.images:
            possible = propose_contexts(image.series, contexts)
            if len(possible) != 1:
                found = f"{len(possible)} contexts are possible: {', '.join(possible)}" if possible else (
                    f"its body part fits none of {_list_contexts(contexts)}"
                )  # fmt: skip
                raise PromptError(
                    f"The context of series {describe(self.study, image.series)} cannot be determined from its "
                    f"headers: {found}. Name it with --context, or give a table of cases."
                )
            if len(contexts) > 1:
                sys.stderr.write(f"note: {image.name}: context {possible[0]}, from the DICOM headers.\n")
            yield image.name, possible[0]

    def _require_fitting(self, choice: ContextChoice, contexts: Mapping[str, PlannedContext]) -> None:
        for image in self.images:
            context = choice.of(image.name)
            if not fits_modality(image.series.modality, contexts[context]):
                raise DataError(
                    f"The modality of series {describe(self.study, image.series)} is {image.series.modality}; that of "
                    f"the context {context!r} is {contexts[context].modality}. Correct the context, or choose another "
                    "series."
                )


def open_dicom(source: str | os.PathLike[str], series: str | None = None, keep_ids: bool = False) -> DicomInput | None:
    """Find the series of a folder or zip file that are to be predicted; None if it holds images that are not DICOM.

    Args:
        source: As the user named it.
        series: Which to choose; see `dicom.choosing.choose_series`.
        keep_ids: Whether cases are named by the patient ID; if not, by a hash of the series UID alone.

    Raises:
        DataError: No series can be read.
        HostError: The extra `dicom` is not installed.
    """
    path = Path(source)
    if not _may_be_dicom(path):
        return None
    study = find_series(path)
    workspace = Workspace()
    chosen = choose_series(study, series)
    if series is None:
        for text in list_left_out(study, chosen):
            sys.stderr.write(f"warning: {text}\n")
    images = tuple(DicomImage(one, name_case(one, keep_ids), workspace, study) for one in chosen)
    return DicomInput(os.fspath(source), study, images, series is not None)


def open_dicom_image(source: str | os.PathLike[str], series: str | None = None) -> DicomInput | None:
    """Find the one series of a folder or zip file, as `open_dicom` does.

    Raises:
        DataError: There are several, or none can be read.
    """
    found = open_dicom(source, series)
    if found is not None:
        require_one(found.study, [image.series for image in found.images])
    return found


def check_reader(reader: str, channels: int) -> None:
    """Check that a model reads what is made of DICOM.

    Raises:
        DataError: Its images are pictures, or have several channels.
    """
    if reader not in _READERS:
        raise DataError(f"The model reads its images by {reader}, to which DICOM cannot be given.")
    if channels != 1:
        raise DataError(
            f"The model takes {channels} channels a case, and a DICOM series is one. Write each series as NIfTI with "
            "`duplus dicom to-nifti`, resample them to one grid, and name them CASE_0000, CASE_0001 and so on."
        )


def _may_be_dicom(path: Path) -> bool:
    if not path.exists() or (path.is_file() and path.suffix.lower() != ".zip"):
        return False
    if path.is_dir() and any(map(_IMAGE_NAME.search, os.listdir(path))):
        return False
    return holds_dicom(path)


def _list_contexts(contexts: Mapping[str, PlannedContext]) -> str:
    return ", ".join(
        f"{name!r} ({planned.modality or 'any'}, {planned.region or 'any'})" for name, planned in contexts.items()
    )
