"""Writes the files of predicted cases. The label map is written last, so that it marks a complete case.

What belongs to all cases of a run (manifest, tables, legend) is written by `run_files`, from what a writer returns.
"""

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duplus_nnunet.data.volume_ranges import read_volume_ranges
from duplus_nnunet.files import open_new_file
from duplus_nnunet.inference.answering import Clock, PredictedCase
from duplus_nnunet.inference.assembly import spread_probabilities
from duplus_nnunet.inference.binding import BoundModel, list_implausible
from duplus_nnunet.inference.options import Options
from duplus_nnunet.inference.reading import InputCase
from duplus_nnunet.outputs.answer import CaseAnswer, Removal
from duplus_nnunet.outputs.legend import embed_label_names
from duplus_nnunet.outputs.manifest import (
    COMPLETE,
    CaseRecord,
    FileRecord,
    current_time,
    describe_file,
    describe_output,
)
from duplus_nnunet.outputs.masks import write_masks
from duplus_nnunet.outputs.measures import Range, TargetStatistics
from duplus_nnunet.outputs.naming import name_files, show_name, to_valid_text
from duplus_nnunet.outputs.probabilities import write_probabilities
from duplus_nnunet.outputs.statistics import measure_case
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_bank import PromptBank
from duplus_nnunet.remote_files import hide_credentials, is_url, read_state

if TYPE_CHECKING:
    from duplus_nnunet.inference.dicom_output import DicomFiles

_DIGITS = 6


@dataclass(frozen=True)
class WrittenCase:
    """A case whose files are written, and what the tables of the run say of it.

    Attributes:
        case: Its identifier.
        record: What the manifest says of it.
        rows: Its statistics; empty if they were not asked for.
        summary: Which targets were found, in one line.
    """

    case: str
    record: CaseRecord
    rows: tuple[TargetStatistics, ...] = ()
    summary: str = ""


@dataclass(frozen=True)
class CaseWriter:
    """Writes one case after another.

    Attributes:
        io: nnU-Net's reader and writer of the model.
        ending: File ending that the model writes.
        options: What is written beside the label map.
        host_probabilities: Whether nnU-Net's own file of probabilities is options.
        volumes: Volumes seen in training, by context and target.
        bank: The model's prompts.
        model: Name of the model.
    """

    io: Any
    ending: str
    options: Options
    host_probabilities: bool
    volumes: Mapping[str, Mapping[str, Range]]
    bank: PromptBank
    model: str = ""

    def write(self, predicted: PredictedCase) -> WrittenCase:
        """Write a case.

        Raises:
            OSError: A file cannot be written; then there is no label map either.
        """
        source, clock = predicted.item.source, Clock()
        if source.output is None:
            raise TypeError("A case that is returned is not written.")
        label_map = Path(source.output + self.ending)
        answer = replace(predicted.answer, file_name=os.path.basename(source.output))
        dicom = clock.time("dicom", self._write_dicom, answer, source) if self.options.output_format else None
        more, rows = clock.time("write", self._write_more, answer, label_map.parent, source)
        files = [
            *more,
            *(dicom.files if dicom else ()),
            *clock.time("write", self._write_host, answer, source.output),
            clock.time("write", self._write_labels, answer, label_map),
        ]
        seconds = {name: round(value, 3) for name, value in {**predicted.seconds, **clock.seconds}.items()}
        record = CaseRecord(
            COMPLETE,
            answer.context,
            {target.name: target.prompt for target in answer.targets},
            describe_inputs(source),
            tuple(describe_output(file, os.path.relpath(file, label_map.parent)) for file in files),
            seconds,
            warnings=(*self._list_warnings(answer, rows), *(dicom.notes if dicom else ())),
            finished=current_time(),
            file_name=None if answer.file_name == answer.case else answer.file_name,
            target_files=self._list_target_files(answer),
            unseen=tuple(target.name for target in answer.targets if not target.seen),
            removed={item.target: _describe_removal(item) for item in answer.removed},
        )
        return WrittenCase(source.name, record, rows, describe_answer(answer))

    def _write_more(
        self, answer: CaseAnswer, folder: Path, source: InputCase
    ) -> tuple[list[Path], tuple[TargetStatistics, ...]]:
        options = self.options
        files: list[Path] = []
        rows: tuple[TargetStatistics, ...] = ()
        if options.split:
            files += write_masks(answer, folder, self.io, self.ending)
        if options.probabilities:
            files += write_probabilities(answer, folder)
        if options.statistics or options.preview:
            # Read again rather than kept: it is wanted only here, and the next image is in memory already.
            image, _ = self.io.read_images(list(source.files))
            if options.statistics:
                rows = measure_case(answer, image, self.volumes.get(answer.context))
            if options.preview:
                from duplus_nnunet.outputs.preview import write_preview  # imports matplotlib

                files += write_preview(answer, image, folder)
        return files, rows

    def _write_dicom(self, answer: CaseAnswer, source: InputCase) -> "DicomFiles":
        """Write what refers to the DICOM series of the image."""
        from duplus_nnunet.inference.dicom_output import find_slices, write_dicom

        options = self.options
        slices = source.slices or find_slices(options.dicom_source or "", source.name)
        return write_dicom(answer, slices, Path(str(source.output)), options.output_format, self.model)

    def _write_host(self, answer: CaseAnswer, output: str) -> list[Path]:
        """Write what nnU-Net's ensembling reads: probabilities, and the properties in its own form."""
        if not self.host_probabilities:
            return []
        import numpy as np

        probabilities, properties = Path(output + ".npz"), Path(output + ".pkl")
        with open_new_file(probabilities) as new:
            np.savez_compressed(new, probabilities=spread_probabilities(answer.targets, answer.geometry.shape))
        with open_new_file(properties) as new:
            new.write_bytes(pickle.dumps(dict(answer.geometry.properties)))
        return [probabilities, properties]

    def _write_labels(self, answer: CaseAnswer, file: Path) -> Path:
        with open_new_file(file) as new:
            self.io.write_seg(answer.labels, str(new), dict(answer.geometry.properties))
            embed_label_names(new, {target.value: target.title for target in answer.targets})
        return file

    def _list_target_files(self, answer: CaseAnswer) -> dict[str, str]:
        if not (self.options.split or self.options.probabilities):
            return {}
        files = name_files([target.file_title for target in answer.targets])
        return dict(zip((target.name for target in answer.targets), files, strict=True))

    def _list_warnings(self, answer: CaseAnswer, rows: Sequence[TargetStatistics]) -> list[str]:
        warnings = list(answer.geometry.properties.get(PLANS_KEY, {}).get("warnings", ()))
        warnings += [
            f"{target.name}: not seen in training; how accurate its mask is is unknown"
            for target in answer.targets
            if not target.seen
        ]
        warnings += list_implausible(self.bank, answer.context, [target.name for target in answer.targets])
        return warnings + [
            f"{row.target}: its volume is outside of what training saw" for row in rows if row.volume_unusual
        ]


def make_writer(bound: BoundModel, host_probabilities: bool = False) -> CaseWriter:
    """Make what writes the cases that a bound model predicts.

    Args:
        bound: The model and what is asked of it.
        host_probabilities: Whether nnU-Net's own file of probabilities is written too.
    """
    bank = bound.model.bank
    ranges = {context: read_volume_ranges(bank.form, context) for context in bank.contexts}
    return CaseWriter(
        io=bound.model.plans.image_reader_writer_class(),
        ending=bound.model.dataset_json["file_ending"],
        options=bound.options,
        host_probabilities=host_probabilities,
        volumes={
            context: {name: (volumes.p1, volumes.p99) for name, volumes in targets.items()}
            for context, targets in ranges.items()
        },
        bank=bank,
        model=bound.model.record.name,
    )


def _describe_removal(removal: Removal) -> dict[str, float]:
    return {
        "components": removal.components,
        "voxels": removal.voxels,
        "volume_ml": round(removal.volume_ml, _DIGITS),
    }


def describe_inputs(source: InputCase) -> tuple[FileRecord, ...]:
    """Describe a case's images as they are now; those of a DICOM series without its paths, which may name a patient.

    Raises:
        OSError: A file cannot be read.
        DataError: A file at a URL cannot be read.
    """
    if source.dicom is not None:
        size, sha256 = source.dicom.measure()
        return (FileRecord(source.dicom.label, size, sha256=sha256),)
    return tuple(map(_describe_url, source.urls)) or tuple(describe_file(Path(file)) for file in source.files)


def _describe_url(url: str) -> FileRecord:
    """Describe a file by what its storage says of it; it is not read a second time."""
    if not is_url(url):
        return describe_file(Path(url))
    state = read_state(url)
    return FileRecord(to_valid_text(hide_credentials(url)), state.size, modified=state.mark)


def describe_answer(answer: CaseAnswer) -> str:
    """Summarise in one line which targets were found."""
    absent = [target.name for target in answer.targets if not target.mask.any()]
    present = len(answer.targets) - len(absent)
    missing = f" (not found: {_list(absent)})" if absent else ""
    return f"{show_name(answer.case)} ({answer.context}): {present} of {len(answer.targets)} target(s){missing}"


def _list(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
