"""Lists the cases of a prediction, and names their files."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.errors import DataError
from duplus_nnunet.inference.dicom_input import DicomImage, DicomInput
from duplus_nnunet.inference.images import list_folder
from duplus_nnunet.inference.model import LoadedModel
from duplus_nnunet.inference.output_store import OutputStore
from duplus_nnunet.inference.reading import InputCase
from duplus_nnunet.outputs.naming import name_cases, to_valid_text
from duplus_nnunet.remote_files import hide_credentials, is_url, read_name


@dataclass(frozen=True)
class PredictionCall:
    """What is predicted and where it goes, as nnU-Net's predictor is called.

    Attributes:
        source: Folder of images, or the files of each case, one per channel; paths or URLs.
        output: Folder, or the URL of one; or a file per case, without ending; None: results are returned.
        save_probabilities: nnU-Net's option: also its own file of probabilities.
        overwrite: Whether cases that are complete are predicted again.
        part: Number of this part, from 0, and number of parts.
        unused: Options of nnU-Net's that change nothing here; they are recorded.
        names: Identifiers of the cases; empty: they are read from the names of the files.
        dicom: DICOM series by the file that is made of each.
        store: Where a folder of this machine is moved to that stands for a URL.
    """

    source: str | Sequence[Sequence[str]]
    output: str | list[str] | None
    save_probabilities: bool = False
    overwrite: bool = True
    part: tuple[int, int] = (0, 1)
    unused: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    dicom: Mapping[str, DicomImage] = field(default_factory=dict)
    store: OutputStore | None = None

    def take_dicom(self, found: DicomInput) -> "PredictionCall":
        """Return the call with the series of a folder as its cases."""
        files = [[image.file] for image in found.images]
        return replace(self, source=files, names=tuple(image.name for image in found.images), dicom=found.by_file)

    @property
    def source_label(self) -> str | Sequence[Sequence[str]]:
        """The source as it is recorded: of DICOM, what stands for each series; URLs without credentials."""
        if self.dicom:
            return [[image.label] for image in self.dicom.values()]
        if isinstance(self.source, str):
            return hide_credentials(self.source)
        return [list(map(hide_credentials, files)) for files in self.source]

    @property
    def output_label(self) -> str | list[str] | None:
        """The output as it is recorded."""
        return self.output if self.store is None else self.store.remote.shown

    @property
    def folder(self) -> Path | None:
        """Folder of the output; None if results are returned."""
        if isinstance(self.output, list):
            return Path(os.path.dirname(self.output[0])) if self.output else None
        return None if self.output is None else Path(self.output)

    @property
    def table_folder(self) -> Path:
        """Folder of manifest and tables; parts that run at the same time have one each."""
        number, parts = self.part
        folder = self.folder or Path()
        return folder if parts == 1 else folder / f"part_{number}_of_{parts}"

    @property
    def shown_folder(self) -> str:
        """The folder of manifest and tables in messages."""
        return str(self.table_folder) if self.store is None else self.store.remote.shown


def list_cases(model: LoadedModel, call: PredictionCall) -> list[InputCase]:
    """List the cases of a call, this part's only; names that could not be files are changed.

    A folder is listed here, since nnU-Net starts twelve processes for it; the division into parts is nnU-Net's.

    Raises:
        DataError: Two cases have one identifier, and would write one file.
    """
    from duplus_nnunet.planners.preprocessor import read_identifier

    ending = model.dataset_json["file_ending"]
    listed = list_folder(call.source, ending) if isinstance(call.source, str) else call.source
    names, outputs = list(call.names), call.output
    if not names and isinstance(outputs, list):
        names = [os.path.basename(output) for output in outputs]
    names = names or [read_identifier(read_name(own[0]) if is_url(own[0]) else own[0], ending) for own in listed]
    if isinstance(outputs, str):
        _require_different(names)
        outputs = [os.path.join(outputs, name) for name in name_cases(names, ending)]
    number, parts = call.part
    files, places, _ = model.predictor._manage_input_and_output_lists(
        listed, outputs, None, True, number, parts, call.save_probabilities
    )
    cases = zip(names[number::parts], files, places or [None] * len(files), strict=True)
    return [_make_case(to_valid_text(name), own, output, call.dicom.get(own[0])) for name, own, output in cases]


def _make_case(name: str, files: Sequence[str], output: str | None, dicom: DicomImage | None) -> InputCase:
    urls = tuple(files) if any(map(is_url, files)) else ()
    slices = () if dicom is None else dicom.slices
    return InputCase(name, tuple(files), output, slices=slices, dicom=dicom, urls=urls)


def _require_different(names: Sequence[str]) -> None:
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(f"{count} cases are called {name!r} and would write the same file. Rename all but one of them.")
