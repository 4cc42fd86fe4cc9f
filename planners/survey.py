"""Surveys the training cases: sizes, labels, intensities and volumes of each case.

nnU-Net's fingerprint pools the intensities of all cases; a context needs those of its own cases.
"""

import contextlib
import multiprocessing
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.configuration import default_num_processes
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

from duplus_nnunet.data.label_maps import describe_rounding, read_label_map
from duplus_nnunet.data.plausibility import describe_intensities
from duplus_nnunet.errors import DataError
from duplus_nnunet.planners.normalization import compress
from duplus_nnunet.progress import track

# Foreground voxels of all cases, per channel; nnU-Net samples ten times as many, which hardly changes percentiles.
_FOREGROUND_VOXELS = 10_000_000
# Number of worker processes that the command line asks for.
_processes: ContextVar[int | None] = ContextVar("processes", default=None)


@dataclass(frozen=True)
class CaseSurvey:
    """Measurements of a case.

    Attributes:
        spacing: mm, in the reader's array order.
        shape: Voxels inside the nonzero bounding box.
        relative_size: Volume of this box as a share of the image, 0 to 1.
        foreground: For each channel, intensities sampled from the labelled voxels.
        labels: Label values in the label map.
        intensities: For each channel, statistics of the whole image from describe_intensities.
        volumes: Volume of each label value, in ml.
        rounded: Number of voxels of the label map whose value was not whole.
    """

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    relative_size: float
    foreground: tuple[Any, ...]
    labels: tuple[int, ...]
    intensities: tuple[dict[str, float], ...]
    volumes: Mapping[int, float] = field(default_factory=dict)
    rounded: int = 0


@contextlib.contextmanager
def limit_processes(count: int | None) -> Iterator[None]:
    """Let surveys inside the block use that many worker processes; None: nnU-Net's default."""
    token = _processes.set(count)
    try:
        yield
    finally:
        _processes.reset(token)


def count_survey_processes() -> int:
    """Return the number of worker processes of a survey."""
    return max(1, _processes.get() or default_num_processes)


def survey_case(
    images: list[str], label: str, reader: type, samples: int, known: Collection[int] | None = None
) -> CaseSurvey:
    """Read a case and measure it.

    Args:
        images: One file per channel.
        label: The label map.
        reader: nnU-Net's reader class.
        samples: Number of foreground voxels to sample.
        known: The declared label values; None: any whole value is accepted.

    Raises:
        DataError: Image and label map have different sizes, a file cannot be read, or the label map holds a value that
            is not whole or not declared.
    """
    try:
        data, properties = reader().read_images(images)
    except Exception as error:  # what a reader raises on a damaged file depends on the reader
        raise DataError(f"{images[0]} cannot be read: {error}. Export the case again.") from error
    label_map, _ = read_label_map(label, reader, known)
    segmentation = label_map.labels
    if data.shape[1:] != segmentation.shape[1:]:
        raise DataError(
            f"{label} has {segmentation.shape[1:]} voxels, its image {images[0]} has {data.shape[1:]}. Resample the "
            "label map to the image's grid."
        )
    intensities = tuple(describe_intensities(channel) for channel in data)
    voxel = float(np.prod(properties["spacing"])) / 1000
    cropped, cropped_labels, _ = crop_to_nonzero(data, segmentation)
    foreground, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
        cropped_labels, cropped, num_samples=samples
    )
    return CaseSurvey(
        spacing=tuple(float(mm) for mm in properties["spacing"]),
        shape=tuple(cropped.shape[1:]),
        relative_size=float(np.prod(cropped.shape[1:]) / np.prod(data.shape[1:])),
        foreground=tuple(np.asarray(values, dtype=np.float32) for values in foreground),
        labels=tuple(label_map.counts),
        intensities=intensities,
        volumes={value: count * voxel for value, count in label_map.counts.items()},
        rounded=label_map.rounded,
    )


def survey_dataset(
    dataset: Mapping[str, Mapping[str, Any]], reader: type, known: Collection[int] | None = None
) -> dict[str, CaseSurvey]:
    """Survey all training cases in parallel, as nnU-Net extracts its fingerprint.

    Args:
        dataset: nnU-Net's mapping of case identifiers to {"images": [files], "label": file}.
        reader: nnU-Net's reader class.
        known: The declared label values; None: any whole value is accepted.

    Raises:
        DataError: A case cannot be used; the message names it.
    """
    samples = max(1, _FOREGROUND_VOXELS // max(1, len(dataset)))
    with multiprocessing.get_context("spawn").Pool(min(count_survey_processes(), max(1, len(dataset)))) as pool:
        results = {
            name: pool.apply_async(survey_case, (case["images"], case["label"], reader, samples, known))
            for name, case in dataset.items()
        }
        names = track(results, len(results), "surveying cases by context", "case")
        surveys = {name: results[name].get() for name in names}
    note = describe_rounding({name: survey.rounded for name, survey in surveys.items()})
    if note:
        sys.stderr.write(f"note: {note}\n")
    return surveys


def survey_labels(
    folder: Path, ending: str, reader: type, known: Collection[int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the label values of each label map in a folder, by case; empty if there is no such folder.

    Raises:
        DataError: A label map cannot be read, or holds a value that is not whole or not declared.
    """
    files = sorted(folder.glob(f"*{ending}")) if folder.is_dir() else []
    labels = {}
    for file in track(files, len(files), "reading labels of test cases", "case"):
        label_map, _ = read_label_map(file, reader, known)
        labels[file.name.removesuffix(ending)] = tuple(label_map.counts)
    return labels


def summarise_foreground(cases: Sequence[CaseSurvey]) -> dict[str, dict[str, float]]:
    """Summarise the labelled voxels of several cases, for each channel, under nnU-Net's names.

    `log_mean` and `log_std` are those of log(1 + intensity), for SUVNormalization.
    """
    summaries = {}
    for channel in range(len(cases[0].foreground)):
        values = np.concatenate([case.foreground[channel] for case in cases])
        summaries[str(channel)] = _summarise(values if values.size else np.zeros(1, dtype=np.float32))
    return summaries


def _summarise(values: Any) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    logarithm = compress(values)
    statistics = {
        "max": values.max(),
        "mean": values.mean(dtype=np.float64),
        "median": median,
        "min": values.min(),
        "percentile_00_5": low,
        "percentile_99_5": high,
        "std": values.std(dtype=np.float64),
        "log_mean": logarithm.mean(dtype=np.float64),
        "log_std": logarithm.std(dtype=np.float64),
    }
    return {name: float(value) for name, value in statistics.items()}
