"""Makes predictions from masks, on grids with a known orientation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff

from duplus_nnunet.outputs.answer import Box, CaseAnswer, Geometry, TargetAnswer
from duplus_nnunet.reporting.surfaces import find_box

NOWHERE: Box = (slice(0, 0),) * 3
SHAPE = (6, 7, 8)
SPACING = (2.5, 0.8, 0.7)
# As in SimpleITK: x runs to the patient's left, y to the back, z to the head.
PROPERTIES: dict[str, Any] = {
    "spacing": list(SPACING),
    "sitk_stuff": {"spacing": SPACING[::-1], "origin": (-11.0, 3.5, 40.25), "direction": np.eye(3).ravel().tolist()},
}


def make_cube(start: tuple[int, int, int], size: tuple[int, int, int], shape: tuple[int, int, int] = SHAPE) -> Any:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, first + length) for first, length in zip(start, size, strict=True))] = True
    return mask


def make_answer(
    masks: Mapping[str, Any], properties: Mapping[str, Any] = PROPERTIES, case: str = "case_1", margin: int = 1
) -> CaseAnswer:
    """Make a prediction from a mask per target; boxes exceed masks by a margin, logits are 3 inside and -3 outside."""
    targets = []
    for value, (name, mask) in enumerate(masks.items(), start=1):
        bounds = find_box(mask)
        box = NOWHERE
        if bounds:
            z, y, x = (
                slice(max(0, part.start - margin), min(size, part.stop + margin))
                for part, size in zip(bounds, mask.shape, strict=True)
            )
            box = (z, y, x)
        logits = np.where(mask[box], 3, -3).astype(np.float16)
        targets.append(TargetAnswer(name, value, f"A computed tomography of the {name}", box, mask[box], logits))
    shape = next(iter(masks.values())).shape
    labels = np.zeros(shape, np.uint8)
    for target in targets:
        labels[target.box][target.mask] = target.value
    geometry = Geometry(shape, tuple(map(float, properties["spacing"])), properties)
    return CaseAnswer(case, "abdomen_ct", "A computed tomography", geometry, labels, tuple(targets))


def make_image(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def save_oriented(file: Path, values: Any, orientation: str, spacing: tuple[float, float, float]) -> Path:
    """Write an array with RAS axes in another orientation."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20.0, 12.5, 100.0)
    transform = nibabel.orientations.ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    stored = nibabel.orientations.apply_orientation(values, transform)
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(stored, affine @ inv_ornt_aff(transform, values.shape)), file)
    return file
