"""Simulates scans of random abdomens with known label maps, and writes them as cases of a raw nnU-Net dataset.

In CT, liver, spleen and both kidneys have the same intensity, and in every modality both kidneys have the same
intensity and shape. They differ only in position, so that only the target prompt states which of them to segment.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from duplus_nnunet.data.anatomy import LABELS, Anatomy, bend_points, draw_anatomy, measure_depth
from duplus_nnunet.data.scans import Scan
from duplus_nnunet.errors import DataError

_FINER = 2
_TISSUES = ("air", "fat", "muscle", "bowel", *LABELS)


@dataclass(frozen=True)
class Phantom:
    """A scanned anatomy and its true labels on the same grid.

    Attributes:
        image: Intensities, float32, axes as stored.
        labels: Label values of `LABELS`, 0 for background, uint8, same shape.
        affine: Matrix (4, 4) from voxel indices to the world coordinates of NIfTI (RAS), in mm.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]


def scan_anatomy(anatomy: Anatomy, scan: Scan, rng: np.random.Generator) -> Phantom:
    """Simulate a scan of an anatomy.

    Args:
        anatomy: The patient.
        scan: The scanner.
        rng: Random generator of noise and shading.
    """
    tissues = _paint_tissues(anatomy, scan)
    image = _take_image(tissues, scan, rng)
    affine = np.diag([*scan.spacing, 1.0])
    affine[:3, 3] = [-(voxels - 1) / 2 * width for voxels, width in zip(scan.shape, scan.spacing, strict=True)]
    return _orient(Phantom(image, _take_labels(tissues), affine), scan.orientation)


def make_phantom(seed: int, group: int, number: int, scan: Scan) -> Phantom:
    """Draw and scan one anatomy; the result depends only on the arguments."""
    anatomy = draw_anatomy(np.random.default_rng([seed, group, number, 0]))
    return scan_anatomy(anatomy, scan, np.random.default_rng([seed, group, number, 1]))


@contextmanager
def open_new_dataset(folder: Path) -> Iterator[Path]:
    """Create a raw dataset atomically: yield a temporary folder, which is renamed at the end.

    Raises:
        DataError: The folder exists already.
    """
    if folder.exists():
        raise DataError(
            f"{folder} exists already; phantoms are written to a new folder. Delete it, or name another one."
        )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (partial / part).mkdir(parents=True)
    yield partial
    partial.rename(folder)


def write_case(folder: Path, part: str, case: str, phantom: Phantom) -> None:
    """Write the image and label map of a case to a dataset; the part is `Tr` or `Ts`."""
    save_volume(phantom.image, phantom.affine, folder / f"images{part}" / f"{case}_0000.nii.gz")
    save_volume(phantom.labels, phantom.affine, folder / f"labels{part}" / f"{case}.nii.gz")


def save_volume(values: NDArray[Any], affine: NDArray[np.float64], file: Path) -> None:
    """Write a volume as NIfTI, with its data type."""
    nibabel.save(nibabel.Nifti1Image(values, affine), file)


def describe_dataset(folder: Path, labels: Mapping[str, int], channel: str, training_cases: int) -> None:
    """Write the dataset.json of a dataset with one channel; label values start from 1."""
    content = {
        "name": "Phantom",
        "description": "Generated abdomens with known truth",
        "channel_names": {"0": channel},
        "labels": {"background": 0, **labels},
        "numTraining": training_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


def _paint_tissues(anatomy: Anatomy, scan: Scan) -> NDArray[np.uint8]:
    points = bend_points(_fine_grid(scan), anatomy.bends)
    tissues = np.zeros(points.shape[1:], dtype=np.uint8)
    for solid in anatomy.solids:
        depth, tissue = measure_depth(solid, points), _TISSUES.index(solid.tissue)
        if solid.gap:
            # The gap adds no fat outside the body, and does not separate two solids of the same tissue.
            tissues[(depth < solid.gap) & (tissues > 0) & (tissues != tissue)] = _TISSUES.index("fat")
        tissues[depth < 0] = tissue
    return tissues


def _fine_grid(scan: Scan) -> NDArray[np.float32]:
    axes = []
    for voxels, width in zip(scan.shape, scan.spacing, strict=True):
        steps = np.arange(voxels * _FINER, dtype=np.float32)
        axes.append((steps - (voxels * _FINER - 1) / 2) * width / _FINER)
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _take_image(tissues: NDArray[np.uint8], scan: Scan, rng: np.random.Generator) -> NDArray[np.float32]:
    table = np.array([scan.intensities[tissue] for tissue in _TISSUES], dtype=np.float32)
    sharpness = [scan.blur * _FINER / width for width in scan.spacing]
    fine = gaussian_filter(table[tissues], sharpness, mode="nearest")
    clean = _average_blocks(fine) * _draw_shading(scan, rng)
    deviation = np.sqrt(scan.noise**2 + scan.grain**2 * np.abs(clean))
    image = clean + deviation * rng.normal(size=clean.shape)
    gain = scan.gain ** rng.uniform(-1.0, 1.0)
    return np.asarray(np.maximum(image * gain, scan.floor), dtype=np.float32)


def _draw_shading(scan: Scan, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a bias field: linear in one direction, and brighter at both ends of another, as near receiver coils."""
    slope, rise = (_draw_ramp(scan, rng) for _ in range(2))
    return np.asarray(np.exp(scan.shading * (slope + rise**2 / 2)), dtype=np.float32)


def _draw_ramp(scan: Scan, rng: np.random.Generator) -> NDArray[np.float64]:
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    steps = [np.linspace(-1.0, 1.0, voxels) * part for voxels, part in zip(scan.shape, direction, strict=True)]
    return np.asarray(steps[0][:, None, None] + steps[1][None, :, None] + steps[2][None, None, :])


def _take_labels(tissues: NDArray[np.uint8]) -> NDArray[np.uint8]:
    first = _TISSUES.index(next(iter(LABELS)))
    fine = np.where(tissues >= first, tissues - first + 1, 0)
    shares = np.stack([_average_blocks((fine == value).astype(np.float32)) for value in range(len(LABELS) + 1)])
    return np.asarray(shares.argmax(axis=0), dtype=np.uint8)


def _average_blocks(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    x, y, z = (size // _FINER for size in fine.shape)
    means: NDArray[np.float32] = fine.reshape(x, _FINER, y, _FINER, z, _FINER).mean(axis=(1, 3, 5))
    return means


def _orient(phantom: Phantom, orientation: str) -> Phantom:
    turn = ornt_transform(io_orientation(phantom.affine), axcodes2ornt(orientation))
    image = nibabel.Nifti1Image(phantom.image, phantom.affine).as_reoriented(turn)
    labels = nibabel.Nifti1Image(phantom.labels, phantom.affine).as_reoriented(turn)
    return Phantom(np.asarray(image.dataobj), np.asarray(labels.dataobj), image.affine)
