"""Reads a case of a download, changes it by the recipe's steps, and writes it in nnU-Net's raw format."""

import gzip
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from duplus_nnunet.conversion.finding import Download
from duplus_nnunet.conversion.found_cases import FoundCase
from duplus_nnunet.conversion.loaded import Loaded
from duplus_nnunet.conversion.recipe import Recipe
from duplus_nnunet.conversion.steps import run_steps
from duplus_nnunet.conversion.volumes import Array, Volume, find_grid_difference, read_masks, read_volume, write_volume
from duplus_nnunet.data.composing.labels import link_file
from duplus_nnunet.data.label_maps import check_labels
from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file

ENDING = ".nii.gz"


@dataclass(frozen=True)
class ConversionJob:
    """What is done with one case.

    Attributes:
        case: Its files.
        values: New value of each label value in them.
        names: New value of each label by its name.
        steps: Name and options of each step.
        root: The download.
        images: Where its images are written, one a channel.
        label: Where its label map is written.
    """

    case: FoundCase
    values: Mapping[int, int]
    names: Mapping[str, int]
    steps: tuple[tuple[str, Mapping[str, Any]], ...]
    root: Path
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class ConvertedCase:
    """What came of a case: the labels in it by name, notes on changes, and the problem if it was not converted."""

    name: str
    present: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""


def convert_case(job: ConversionJob) -> ConvertedCase:
    """Convert one case; a case that cannot be used is reported and not written."""
    try:
        loaded = run_steps(_load(job), job.steps)
        _check(loaded)
        _write(job, loaded)
    except (ValueError, ArithmeticError, RuntimeError, OSError) as error:  # DataError is a ValueError
        return ConvertedCase(job.case.name, problem=str(error) or type(error).__name__)
    found = set() if loaded.label is None else set(np.unique(loaded.label.array).tolist())
    return ConvertedCase(
        job.case.name, tuple(name for name, value in job.names.items() if value in found), loaded.notes
    )


def _load(job: ConversionJob) -> Loaded:
    case = job.case
    stored = [read_volume(file) for file in case.images]
    if case.group.stacked:
        images = _split_channels(stored[0], len(job.images))
    else:
        images = tuple(_take_frame(volume, case.frame) for volume in stored)
    label = _load_label(job, images[0])
    is_frame = any(volume.array.ndim > 3 for volume in stored)
    notes = tuple(note for volume in stored for note in volume.notes)
    return Loaded(case.name, case.fields, images, label, job.names, is_frame, notes, job.root)


def _load_label(job: ConversionJob, image: Volume) -> Volume | None:
    case = job.case
    if case.masks:
        return _join_masks(job)
    if case.ground is not None:
        stored = Volume(read_masks(case.ground, case.images[0]), image.affine, case.ground)
    elif case.label is not None:
        stored = _take_frame(read_volume(case.label), case.frame)
    else:
        return None
    found = check_labels(stored.array, str(stored.file), job.values)
    return stored.with_array(_translate(found.labels.astype(np.int64), job.values))


def _join_masks(job: ConversionJob) -> Volume:
    """Join one mask a label into a label map; where masks overlap, the later label counts, or the more probable one."""
    label: Volume | None = None
    highest: Array | None = None
    for name, file in job.case.masks.items():
        mask = read_volume(file)
        if label is None:
            label, highest = (
                mask.with_array(np.zeros(mask.array.shape, np.uint16)),
                np.zeros(mask.array.shape, np.float32),
            )
        difference = find_grid_difference(label, mask)
        if difference or highest is None:
            raise DataError(f"{job.case.name}: {difference}. Download the masks again.")
        owned = mask.array > (highest if job.case.group.soft else 0)
        label.array[owned] = job.names[name]
        highest[owned] = mask.array[owned]
    if label is None:
        raise DataError(f"{job.case.name} has no mask.")
    return label


def _translate(labels: Array, values: Mapping[int, int]) -> Array:
    """Replace label values by the new ones."""
    table = np.zeros(max(values) + 1, dtype=np.uint16)
    for old, new in values.items():
        table[old] = new
    translated: Array = table[labels]
    return translated


def _split_channels(volume: Volume, channels: int) -> tuple[Volume, ...]:
    """Split a file of four dimensions into its channels."""
    if volume.array.ndim != 4 or volume.array.shape[3] != channels:
        raise DataError(
            f"{volume.file} has the shape {'x'.join(map(str, volume.array.shape))}; expected four dimensions, the last "
            f"with {channels} channels. Download it again."
        )
    return tuple(volume.with_array(volume.array[..., channel]) for channel in range(channels))


def _take_frame(volume: Volume, frame: int | None) -> Volume:
    """Take one frame of a 4D image; one of a single frame needs no number."""
    array = volume.array
    if array.ndim == 4 and array.shape[3] == 1 and not frame:
        array = array[..., 0]
    elif array.ndim == 4:
        if frame is None or frame >= array.shape[3]:
            raise DataError(f"{volume.file} has {array.shape[3]} frames; expected a number below that, found {frame}.")
        array = array[..., frame]
    if array.ndim != 3:
        raise DataError(f"{volume.file} has {array.ndim} dimensions, expected 3.")
    return volume.with_array(array)


def _check(case: Loaded) -> None:
    """Check that images are finite, and images and label map lie on one grid."""
    for volume in (*case.images, *([case.label] if case.label is not None else [])):
        difference = find_grid_difference(case.images[0], volume)
        if difference:
            raise DataError(f"{case.name}: {difference}. Resample it to the image's grid, or leave the case out.")
        if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
            raise DataError(f"{case.name}: {volume.file} has voxels that are not finite. Download it again.")


def _write(job: ConversionJob, case: Loaded) -> None:
    """Write images and label map; what is as it was downloaded is linked."""
    # A file of four dimensions, of which one frame is taken, is not a file of that frame.
    whole = job.case.frame is None and not case.is_frame
    as_stored = whole and (not job.steps or not case.notes)
    for index, (image, new) in enumerate(zip(case.images, job.images, strict=True)):
        if as_stored and _keep(job.case.images[index], new):
            continue
        write_volume(image, new)
    if case.label is None:
        return
    stored, unchanged = job.case.label, all(old == value for old, value in job.values.items())
    if stored is not None and as_stored and unchanged and _keep(stored, job.label):
        return
    write_volume(
        replace(case.label, affine=case.images[0].affine),
        job.label,
        np.uint8 if max(job.names.values()) < 256 else np.uint16,
    )


def _keep(file: Path, new: Path) -> bool:
    """Link a compressed NIfTI file, or compress a plain one as it is; other files have to be written again."""
    if file.name.endswith(ENDING):
        link_file(str(file), str(new))
        return True
    if file.suffix != ".nii":
        return False
    with open_new_file(new) as target, file.open("rb") as source, gzip.open(target, "wb", compresslevel=4) as packed:
        shutil.copyfileobj(source, packed, 1 << 20)
    return True


def list_jobs(recipe: Recipe, download: Download, folder: Path) -> list[ConversionJob]:
    """List what is done with each case of a download, to be written into a folder."""
    names = {label: number for number, label in enumerate(recipe.labels, start=1)}
    steps = tuple((step.step, step.options) for step in recipe.steps)
    jobs = []
    for case in download.cases:
        end = "Ts" if case.group.test else "Tr"
        images = tuple(
            folder / f"images{end}" / f"{case.name}_{channel:04}{ENDING}" for channel in range(len(recipe.channels))
        )
        label = folder / f"labels{end}" / f"{case.name}{ENDING}"
        jobs.append(ConversionJob(case, recipe.values, names, steps, download.root, images, label))
    return jobs
