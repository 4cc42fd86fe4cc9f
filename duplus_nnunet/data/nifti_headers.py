"""Reads the raw header of a NIfTI file, and finds what contradicts itself in it."""

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.errors import DataError

Affine = NDArray[np.float64]
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])

_BLOCK = 1 << 22
_LENGTH_IN_GZIP = 1 << 32
_LEAST_SLOPE = 1e-12
_HEADER_BYTES, _LEAST_OFFSET = {1: 348, 2: 540}, {1: 352, 2: 544}
_MAGIC = {1: b"n+1\x00", 2: b"n+2\x00\r\n\x1a\n"}
# NIfTI's codes of whole and floating-point numbers, and their size in bytes.
_NUMBERS = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
_OTHERS = {1: "bits", 32: "complex", 128: "RGB", 1536: "128-bit", 1792: "complex", 2048: "complex", 2304: "RGBA"}
# Millimetres of NIfTI's units of length: unknown, metre, millimetre, micrometre.
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_SCANNER = 1
# Relative difference of voxel sizes: above that of rounding, and one that changes volumes.
_ROUNDING, _DIFFERENT, _OTHER_IMAGE = 1e-3, 1e-2, 1.0
# Of ITK's test for right angles between the axes of the sform.
_ITK_RIGHT_ANGLE = 1e-4
_SAME_DIRECTION = 1e-2  # largest difference of a direction cosine, half a degree


@dataclass(frozen=True)
class NiftiHeader:
    """A header of NIfTI-1 or NIfTI-2.

    Attributes:
        version: 1 or 2.
        shape: Voxels along the file's axes, without axes of one voxel after the third.
        dimensions: Number of axes that the header declares.
        spacing: `pixdim` of the same axes, in the file's unit.
        unit: Code of the unit of length.
        qform: Affine of the qform to RAS, in the file's unit; None if its code is 0.
        sform: Affine of the sform; None if its code is 0.
        scanner_based: Whether the sform's code says that it is that of the scanner.
    """

    version: int
    shape: tuple[int, ...]
    dimensions: int
    spacing: tuple[float, ...]
    unit: int
    qform: Affine | None
    sform: Affine | None
    scanner_based: bool

    @property
    def is_oriented(self) -> bool:
        """Whether the file says how it lies in the patient."""
        return self.qform is not None or self.sform is not None

    def scaled_spacing(self, by_sitk: bool) -> tuple[float, ...]:
        """Return the voxel size as SimpleITK (in mm) or nibabel (without the unit) takes it."""
        factor = _UNITS.get(self.unit, 1.0) if by_sitk else 1.0
        return tuple(abs(width) * factor for width in self.spacing[:3])

    def choose_affine(self, by_sitk: bool) -> Affine:
        """Return the affine to RAS, in mm, that SimpleITK or nibabel takes of the file."""
        factor = np.diag([_UNITS.get(self.unit, 1.0) if by_sitk else 1.0] * 3 + [1.0])
        chosen = self._choose_by_sitk() if by_sitk else self.sform if self.sform is not None else self.qform
        if chosen is not None:
            return factor @ chosen
        widths = np.array(self.spacing[:3])
        affine = np.eye(4)
        # Without codes, SimpleITK takes the array as it is in LPS, and nibabel turns its first axis.
        affine[:3, :3] = np.diag(widths * ([-1, -1, 1] if by_sitk else [-1, 1, 1]))
        if not by_sitk:
            affine[:3, 3] = -affine[:3, :3] @ ((np.array(self.shape[:3]) - 1) / 2)
        return factor @ affine

    def _choose_by_sitk(self) -> Affine | None:
        """ITK 5.4 takes the sform if it is the scanner's or alone, and agrees with pixdim; otherwise the qform."""
        if self.sform is None or (self.qform is not None and not self._is_plain(self.sform)):
            return self.qform
        return self.sform if self.scanner_based or self.qform is None else self.qform

    def _is_plain(self, affine: Affine) -> bool:
        return self._find_scale(affine) < _ROUNDING and find_shear(affine) < _ITK_RIGHT_ANGLE

    def find_problems(self, by_sitk: bool) -> Iterator[str]:
        """Yield sentences on why the file cannot be used."""
        if self.version == 2 and by_sitk:
            yield (
                "It is a NIfTI-2 file, which SimpleITK, the model's reader, cannot read. Save it as NIfTI-1, for "
                "example with nibabel.Nifti1Image.from_image."
            )
        if len(self.shape) > 3:
            yield (
                f"It holds {math.prod(self.shape[3:])} volumes (shape {' x '.join(map(str, self.shape))}); expected "
                "one. Split it into one file per channel, named CASE_0000, CASE_0001 and so on, or per time point."
            )
        if self.dimensions > 3 and not by_sitk and len(self.shape) <= 3:
            yield f"It declares {self.dimensions} axes; nibabel, the model's reader, takes 3. Save it with three axes."
        if len(self.shape) == 3:
            yield from self._find_wrong_spacing()
            yield from self._find_wrong_direction(by_sitk)

    def _find_wrong_spacing(self) -> Iterator[str]:
        widths = self.spacing[:3]
        if not all(math.isfinite(width) and width > 0 for width in widths):
            listed = "" if self.sform is None else f"; its sform has voxels of {_list(_widths(self.sform))}"
            yield (
                f"Its voxel size (pixdim) is {_list(widths)} (x, y, z){listed}. Readers replace sizes that are not "
                "above 0 by 1 mm, or reverse the axis. Correct the header."
            )

    def _find_wrong_direction(self, by_sitk: bool) -> Iterator[str]:
        for name, affine in (("qform", self.qform), ("sform", self.sform)):
            if affine is not None and not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0):
                yield f"Its {name} is not an invertible matrix of finite numbers. Correct the header."
                return
        if self.sform is None or not all(math.isfinite(width) and width > 0 for width in self.spacing[:3]):
            return
        yield from self._find_wrong_sform(self.sform, by_sitk)

    def _find_wrong_sform(self, sform: Affine, by_sitk: bool) -> Iterator[str]:
        scale, registered = self._find_scale(sform), self.qform is not None and not self.scanner_based and by_sitk
        if scale > (_OTHER_IMAGE if registered else _DIFFERENT):
            yield (
                f"Its voxel size is {_list(self.spacing[:3])} by pixdim and {_list(_widths(sform))} by the sform "
                "(x, y, z). Volumes would be wrong if the reader takes the wrong one. Correct the header."
            )
        elif by_sitk and self.qform is None and find_shear(sform) >= _ITK_RIGHT_ANGLE:
            yield (
                f"The axes of its sform are not at right angles (cosine {find_shear(sform):.4f}), which the model's "
                "reader does not take. Resample the image onto a grid at right angles, or correct the header."
            )
        if self.qform is not None and exchanges_sides(self.qform, sform):
            yield (
                f"Its sform ({_name_axes(sform)}) and its qform ({_name_axes(self.qform)}) disagree on left and "
                "right, so that sides cannot be known. Correct the header: set the wrong one to the other."
            )

    def find_doubts(self, by_sitk: bool) -> Iterator[str]:
        """Yield sentences on what is doubtful about a file that can be used."""
        if len(self.shape) < 3:
            return
        if not self.is_oriented:
            assumed = "the patient's left and back" if by_sitk else "the patient's left and front"
            yield (
                "Its qform and sform have the code 0, so that its orientation is unknown: it is read as if x and y "
                f"ran to {assumed}, and left and right may be exchanged."
            )
        if self.sform is None:
            return
        if self._find_scale(self.sform) > _ROUNDING:
            yield (
                f"Its voxel size is {_list(self.spacing[:3])} by pixdim, which is used, and "
                f"{_list(_widths(self.sform))} by the sform (x, y, z)."
            )
        if self.qform is not None:
            taken = "sform" if not by_sitk or self._choose_by_sitk() is self.sform else "qform"
            yield from _compare_forms(self.qform, self.sform, taken)

    def _find_scale(self, affine: Affine) -> float:
        """Return the largest relative difference between pixdim and the voxel sizes of an affine."""
        ratios = _widths(affine) / np.abs(self.spacing[:3])
        return float(np.max(np.maximum(ratios, 1 / ratios)) - 1)


def _compare_forms(qform: Affine, sform: Affine, taken: str) -> Iterator[str]:
    """Yield sentences on differences between qform and sform, of which readers take one."""
    if np.abs(_cosines(qform) - _cosines(sform)).max() > _SAME_DIRECTION:
        yield (
            f"Its sform ({_name_axes(sform)}) and its qform ({_name_axes(qform)}) have different directions; the "
            f"{taken} is used."
        )
    moved = np.abs(qform[:3, 3] - sform[:3, 3])
    if (moved > _widths(qform).max()).any():
        yield f"Its sform and its qform are {np.linalg.norm(moved):.1f} mm apart; the {taken} is used."


def find_shear(affine: Affine) -> float:
    """Return the largest cosine between two axes of an affine: 0 at right angles."""
    cosines = _cosines(affine)
    return float(np.abs(cosines.T @ cosines - np.eye(3)).max())


def exchanges_sides(first: Affine, second: Affine) -> bool:
    """Say whether two affines disagree on left and right: on the axis, on its sign, or by a mirror image."""
    mirrored = np.linalg.det(first[:3, :3]) * np.linalg.det(second[:3, :3]) < 0
    across = (_cosines(first)[0], _cosines(second)[0])
    axes = [int(np.abs(row).argmax()) for row in across]
    return bool(mirrored or axes[0] != axes[1] or across[0][axes[0]] * across[1][axes[1]] < 0)


def _widths(affine: Affine) -> Affine:
    widths: Affine = np.linalg.norm(affine[:3, :3], axis=0)
    return widths


def _cosines(affine: Affine) -> Affine:
    cosines: Affine = affine[:3, :3] / _widths(affine)
    return cosines


def _name_axes(affine: Affine) -> str:
    from nibabel.orientations import aff2axcodes

    return "".join(str(letter) for letter in aff2axcodes(affine))


def _list(widths: Any) -> str:
    return " x ".join(f"{float(width):g}" for width in widths)


def read_nifti_header(file: Path) -> NiftiHeader:
    """Read a NIfTI file's header, and check it against the size of the file.

    Raises:
        DataError: The file is not a NIfTI file of numbers, or its size is not what the header says.
    """
    try:
        raw, version = _read_raw(file)
        expected = _count_bytes(file, raw, version)
        size = measure_bytes(file, expected)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {error}. Copy or convert the image again.") from error
    if size < expected:
        raise DataError(f"{file} is cut off: it holds {size} of {expected} bytes. Copy or convert the image again.")
    if size > expected:
        shape = " x ".join(str(int(length)) for length in raw["dim"][1 : int(raw["dim"][0]) + 1])
        raise DataError(
            f"{file} holds {size} bytes, and its header, of {shape} voxels, declares {expected}: a part of the data "
            "would be left out. Convert the image again."
        )
    _check_scaling(file, float(raw["scl_slope"]), float(raw["scl_inter"]))
    return _interpret(file, raw, version)


def _read_raw(file: Path) -> tuple[Any, int]:
    """Return a header's fields as they are stored, and NIfTI's version."""
    from nibabel import Nifti1Header, Nifti2Header

    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as content:
        start = content.read(_HEADER_BYTES[2])
    for version, kind in ((1, Nifti1Header), (2, Nifti2Header)):
        block = start[: _HEADER_BYTES[version]]
        if len(block) < _HEADER_BYTES[version]:
            continue
        for order in "<>":
            raw = np.frombuffer(block, kind.template_dtype.newbyteorder(order))[0]
            if raw["sizeof_hdr"] == _HEADER_BYTES[version]:
                if bytes(block[344:348] if version == 1 else block[4:12]) != _MAGIC[version]:
                    raise DataError(f"{file} is not a single-file NIfTI image. Convert it to NIfTI-1 (.nii.gz).")
                return raw, version
    raise DataError(
        f"{file} is not a NIfTI file: its header of {len(start)} bytes is not one. Convert the image again."
    )


def _count_bytes(file: Path, raw: Any, version: int) -> int:
    """Count the bytes that the header promises."""
    axes, offset, code = int(raw["dim"][0]), float(raw["vox_offset"]), int(raw["datatype"])
    if not 1 <= axes <= 7 or any(int(size) < 1 for size in raw["dim"][1 : axes + 1]):
        raise DataError(
            f"{file} declares {axes} axes of {[int(size) for size in raw['dim'][1:]]} voxels; expected 3 axes of at "
            "least one voxel. Convert the image again."
        )
    if code not in _NUMBERS:
        kind = _OTHERS.get(code, "unknown")
        raise DataError(
            f"{file} holds {kind} values (NIfTI's datatype {code}); expected one whole or floating-point number a "
            "voxel. Convert the image, for example to one file per colour channel."
        )
    if int(raw["bitpix"]) != 8 * _NUMBERS[code]:
        raise DataError(
            f"{file} declares {int(raw['bitpix'])} bits a voxel, and datatype {code}, which has {8 * _NUMBERS[code]}. "
            "Convert the image again."
        )
    if not math.isfinite(offset) or offset != int(offset) or offset < _LEAST_OFFSET[version]:
        raise DataError(
            f"{file} declares that its data begin at byte {offset:g} (vox_offset); expected a whole number of at least "
            f"{_LEAST_OFFSET[version]}. Readers would shift the image. Convert the image again."
        )
    return int(offset) + math.prod(int(size) for size in raw["dim"][1 : axes + 1]) * _NUMBERS[code]


def measure_bytes(file: Path, expected: int) -> int:
    """Measure the uncompressed size of a file, from the last four bytes of a gzip file or by reading it to its end."""
    if file.suffix != ".gz":
        return file.stat().st_size
    with file.open("rb") as packed:
        packed.seek(-4, os.SEEK_END)
        promised = int.from_bytes(packed.read(4), "little")
    if promised == expected % _LENGTH_IN_GZIP:
        return expected
    with gzip.open(file) as unpacked:
        return sum(len(block) for block in iter(lambda: unpacked.read(_BLOCK), b""))


def _check_scaling(file: Path, slope: float, intercept: float) -> None:
    """Refuse scaling that readers understand differently; a slope of 0 or NaN alone means none."""
    unscaled = math.isnan(slope) or slope == 0
    wrong = math.isinf(slope) or math.isinf(intercept)
    wrong |= (math.isfinite(intercept) and intercept != 0) if unscaled else math.isnan(intercept)
    wrong |= 0 < abs(slope) < _LEAST_SLOPE  # SimpleITK takes it for 0, hence for none
    if wrong:
        raise DataError(
            f"{file} scales its values by {slope:g} and adds {intercept:g} (scl_slope, scl_inter), which programs "
            "understand differently. Correct the header."
        )


def _read_handedness(file: Path, stored: float) -> float:
    """Return 1 or -1, the sign of the qform's third axis; other numbers mean 1, as NIfTI-1 defines of 0."""
    if stored < 0 and stored != -1:
        raise DataError(
            f"{file} declares {stored:g} where 1 or -1 says how its third axis lies (pixdim[0]), which programs "
            "understand differently. Correct the header."
        )
    return -1.0 if stored == -1 else 1.0


def _interpret(file: Path, raw: Any, version: int) -> NiftiHeader:
    from nibabel import Nifti1Header, Nifti2Header

    axes = int(raw["dim"][0])
    shape = [int(size) for size in raw["dim"][1 : axes + 1]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    kind = Nifti1Header if version == 1 else Nifti2Header
    header = kind(raw.tobytes(), endianness=raw.dtype["sizeof_hdr"].byteorder, check=False)
    header["pixdim"][0] = _read_handedness(file, float(raw["pixdim"][0]))
    qform = None
    spacing = tuple(float(width) for width in raw["pixdim"][1 : axes + 1])
    if int(raw["qform_code"]) > 0 and all(math.isfinite(width) and width > 0 for width in spacing[:3]):
        try:
            qform = header.get_qform(coded=False)
        except ValueError as error:
            raise DataError(f"{file}: its qform is not a rotation: {error}. Correct the header.") from error
    return NiftiHeader(
        version=version,
        shape=tuple(shape),
        dimensions=axes,
        spacing=spacing,
        unit=int(raw["xyzt_units"]) & 7,
        qform=qform,
        sform=None if int(raw["sform_code"]) <= 0 else np.asarray(header.get_sform(coded=False), np.float64),
        scanner_based=int(raw["sform_code"]) == _SCANNER,
    )
