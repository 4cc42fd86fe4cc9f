"""Options of a prediction: what to write beside the label map, memory, precision and adapters."""

import argparse
from dataclasses import dataclass

from duplus_nnunet.errors import PromptError, describe_unknown
from duplus_nnunet.inference.memory import read_memory

PRECISIONS = ("auto", "float32", "bfloat16")
RIVALS = ("all", "asked")
PRIORITIES = ("trained", "probability")
OUTPUT_FORMATS = ("dicom-seg", "dicom-labelmap", "rtstruct")


@dataclass(frozen=True)
class Options:
    """What a user asks for beside targets and context.

    Attributes:
        split: A mask file a target.
        probabilities: A file of probabilities a target.
        statistics: Tables of measurements.
        preview: A picture a case.
        jobs: A table of jobs, or None.
        memory: As typed, or None for half of what is free.
        precision: One of PRECISIONS.
        adapters: Folders of adapters of the model.
        verify: Whether files of any size are hashed when a prediction is continued.
        rivals: Which targets exclusive ones are settled against, one of RIVALS.
        prompt_priority: Who owns a voxel that a trained target and an unseen text claim, one of PRIORITIES.
        series: Which DICOM series are predicted, as typed; None: all that can be.
        keep_ids: Whether cases from DICOM are named by the patient ID.
        keep_largest: Targets of which only the largest connected component is kept.
        remove_small: Volumes in ml below which components are removed: of all targets, or as `NAME=ML` of one.
        output_format: DICOM files that are written beside the label map, some of OUTPUT_FORMATS.
        dicom_source: Folder of the series that the images were made from, where they are not series themselves.

    Example:
        >>> Options(memory="8GB", rivals="asked").precision
        'auto'
        >>> Options(memory="much")
        Traceback (most recent call last):
        duplus_nnunet.errors.DataError: --memory is 'much'; expected an amount above 0 such as 8, 8GB or 500MB.
    """

    split: bool = False
    probabilities: bool = False
    statistics: bool = False
    preview: bool = False
    jobs: str | None = None
    memory: str | None = None
    precision: str = "auto"
    adapters: tuple[str, ...] = ()
    verify: bool = False
    rivals: str = "all"
    prompt_priority: str = "trained"
    series: str | None = None
    keep_ids: bool = False
    keep_largest: tuple[str, ...] = ()
    remove_small: tuple[str, ...] = ()
    output_format: tuple[str, ...] = ()
    dicom_source: str | None = None

    def __post_init__(self) -> None:
        for kind, word, known in (
            ("choice of rivals", self.rivals, RIVALS),
            ("prompt priority", self.prompt_priority, PRIORITIES),
            *(("output format", word, OUTPUT_FORMATS) for word in self.output_format),
        ):
            if word not in known:
                raise PromptError(describe_unknown(kind, word, known))
        if self.memory is not None:
            read_memory(self.memory)

    @property
    def asks_for_more(self) -> bool:
        """Whether files are wanted beside the label map."""
        return self.split or self.probabilities or self.statistics or self.preview or bool(self.output_format)


def read_options(parsed: argparse.Namespace) -> Options:
    """Collect the options from what was parsed."""
    names = (
        "split", "probabilities", "statistics", "preview", "jobs", "memory", "precision", "rivals", "prompt_priority",
        "verify", "series", "keep_ids", "dicom_source",
    )  # fmt: skip
    several = ("adapters", "keep_largest", "remove_small", "output_format")
    values = {name: getattr(parsed, name) for name in names}
    return Options(**values | {name: tuple(getattr(parsed, name)) for name in several})
