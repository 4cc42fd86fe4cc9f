"""Reads and preprocesses cases ahead of the network, in threads; a case that cannot be read is passed on as failed.

Threads, since nnU-Net's processes take seconds each to import everything, and the compiled code that takes the time
releases Python's lock.
"""

import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from duplus_nnunet.errors import DuplusError
from duplus_nnunet.inference.dicom_input import DicomImage, check_reader
from duplus_nnunet.inference.images import check_case, check_finite
from duplus_nnunet.outputs.naming import require_valid_text
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.remote_files import fetch, hide_credentials, is_url

if TYPE_CHECKING:
    from duplus_nnunet.inference.binding import BoundModel


@dataclass(frozen=True)
class InputCase:
    """A case that is to be predicted.

    Attributes:
        name: nnU-Net's case identifier.
        files: One a channel.
        output: Where its label map goes, without file ending; None: it is returned.
        context: The context of its image; empty: the preprocessor looks it up.
        slices: Every file of the DICOM series that its image was read from; empty: it is no series.
        dicom: The series that its file is made of when it is read; None: the files are there.
        urls: Where its files are fetched from when it is read, one a channel; empty: they are files of this machine.
    """

    name: str
    files: tuple[str, ...]
    output: str | None
    context: str = ""
    slices: tuple[str, ...] = ()
    dicom: DicomImage | None = None
    urls: tuple[str, ...] = ()

    def hide_folders(self, text: str) -> str:
        """Take the folders of the case's files out of a text that is kept: they are often named by the patient."""
        text = hide_credentials(text)
        folders = {str(Path(file).parent) for file in (*self.files, *self.slices)} - {".", os.sep}
        folders |= {hide_credentials(url).rpartition("/")[0] for url in self.urls}
        for folder in sorted(folders, key=len, reverse=True):
            text = text.replace(folder + os.sep, "").replace(folder, "its folder")
        return text

    def forget(self) -> None:
        """Remove what was made for the case alone."""
        if self.dicom is not None:
            self.dicom.remove()
        if self.is_fetched:
            shutil.rmtree(Path(self.files[0]).parents[1], ignore_errors=True)

    @property
    def is_fetched(self) -> bool:
        """Whether its files are copies, in a folder of their own, of what lies at URLs."""
        return bool(self.urls) and self.files != self.urls

    def fetch(self) -> "InputCase":
        """Copy what lies at URLs into a folder of this machine, once; returns the case with these files.

        Raises:
            DataError: A file cannot be fetched.
        """
        if not self.urls or self.is_fetched:
            return self
        folder = Path(tempfile.mkdtemp(prefix="duplus_image_"))
        try:
            files = [_fetch_channel(url, folder / str(channel)) for channel, url in enumerate(self.urls)]
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return replace(self, files=tuple(files))


def _fetch_channel(url: str, folder: Path) -> str:
    """Copy one file into a new folder: channels may have the same name."""
    folder.mkdir()
    return str(fetch(url, folder) if is_url(url) else shutil.copy(url, folder))


@dataclass(frozen=True)
class PreparedCase:
    """A case that was read, or not.

    Attributes:
        source: The case.
        data: Preprocessed, float32, shape (C, D, H, W); None if it failed.
        properties: nnU-Net's, of that case.
        error: Why it failed; empty if it did not.
        seconds: How long reading and preprocessing took.
    """

    source: InputCase
    data: Any = None
    properties: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Reader:
    """What reading and preprocessing needs of a model.

    Attributes:
        plans: nnU-Net's plans.
        configuration: nnU-Net's configuration, of no context yet.
        dataset_json: Of the prediction.
        verbose: Whether nnU-Net's preprocessor reports what it does.
    """

    plans: PlansManager
    configuration: ConfigurationManager
    dataset_json: dict[str, Any]
    verbose: bool = False

    def read(self, source: InputCase) -> PreparedCase:
        """Read, check and preprocess one case; an error is returned with the case, not raised."""
        started = time.perf_counter()
        try:
            source = source.fetch()
            data, properties = self._preprocess(source)
        except MemoryError as error:
            why = f"There was not enough memory to read and resample the image ({error}). Check its voxel size."
            return PreparedCase(source, error=why, seconds=time.perf_counter() - started)
        except Exception as error:  # readers have exceptions of their own, and no case may end the others
            return PreparedCase(source, error=report_failure(error), seconds=time.perf_counter() - started)
        return PreparedCase(source, data, properties, seconds=time.perf_counter() - started)

    def _preprocess(self, source: InputCase) -> tuple[Any, dict[str, Any]]:
        import torch

        for file in source.files:
            require_valid_text(file)
        notes = self._make_image(source)
        check_case(source.files, self.dataset_json)
        preprocessor = self.configuration.preprocessor_class(verbose=self.verbose)
        preprocessor.context, preprocessor.case = source.context, source.name
        data, _, properties = preprocessor.run_case(
            list(source.files), None, self.plans, self.configuration, self.dataset_json
        )
        tensor = torch.from_numpy(data).to(torch.float32).contiguous()
        check_finite(tensor)
        if notes and PLANS_KEY in properties:
            properties[PLANS_KEY]["warnings"] = [*notes, *properties[PLANS_KEY].get("warnings", ())]
        return tensor, properties

    def _make_image(self, source: InputCase) -> tuple[str, ...]:
        """Make the image file of a DICOM series, and write on stderr and return what was corrected."""
        if source.dicom is None:
            return ()
        names = self.dataset_json.get("channel_names", self.dataset_json.get("modality", {}))
        check_reader(str(self.plans.plans.get("image_reader_writer", "SimpleITKIO")), len(names))
        notes = source.dicom.write()
        for note in notes:
            sys.stderr.write(f"note: {source.name}: {note}\n")
        return notes


def make_reader(bound: "BoundModel") -> Reader:
    """Make what reads the cases of a bound model."""
    model = bound.model
    verbose = bool(model.predictor.verbose_preprocessing)
    return Reader(model.plans, model.configuration, bound.declare_all(), verbose)


def read_ahead(reader: Reader, sources: Sequence[InputCase], depth: int = 1) -> Iterator[PreparedCase]:
    """Yield cases in their order, `depth` of them being prepared while one is worked on."""
    with ThreadPoolExecutor(max_workers=depth, thread_name_prefix="reading") as pool:
        waiting: list[Future[PreparedCase]] = []
        try:
            for source in sources:
                waiting.append(pool.submit(reader.read, source))
                if len(waiting) > depth:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def to_prepared_case(item: Mapping[str, Any]) -> PreparedCase:
    """Return an item of one of nnU-Net's own data iterators as a case."""
    import numpy as np
    import torch

    data, output = item["data"], item["ofile"]
    if isinstance(data, str):  # too large for nnU-Net's queue, hence in a file that the receiver deletes
        file, data = data, torch.from_numpy(np.load(data))
        os.remove(file)
    name = "image" if output is None else os.path.basename(output)
    return PreparedCase(InputCase(name, (), output), data, item["data_properties"])


def report_failure(error: Exception) -> str:
    """Describe why a case failed, in one paragraph; an unexpected error is printed to stderr with its trace."""
    if isinstance(error, DuplusError):
        return hide_credentials(str(error))
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return f"There was not enough memory ({error}). Predict with a smaller --memory, or fewer targets."
    sys.stderr.write(hide_credentials("".join(traceback.format_exception(error))))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return hide_credentials(f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}")
