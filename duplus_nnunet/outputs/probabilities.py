"""Writes one compressed probability map per target (`--probabilities`), and reads them back.

A file is a Blosc2 array (b2nd) of float16 on the image's grid (z, y, x), with its description as JSON in the variable
length metadata `duplus`. Chunks outside a target's bounding box take no space.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import blosc2  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from duplus_nnunet.errors import DataError
from duplus_nnunet.files import open_new_file
from duplus_nnunet.outputs.answer import CaseAnswer, TargetAnswer
from duplus_nnunet.outputs.naming import find_case_folder, name_files
from duplus_nnunet.outputs.world import find_affine

ENDING = ".b2nd"
VERSION = 1

_KEY = "duplus"
# Cubes: a slice in any direction touches few of them, and empty ones take no space.
_CHUNK = 64
_BLOCK = (16, 32, 32)
_LEAST_ABOVE_HALF = np.nextafter(np.float16(0.5), np.float16(1))

Probabilities = NDArray[np.float16]


@dataclass(frozen=True)
class MapDescription:
    """The metadata of a probability map.

    Attributes:
        case: nnU-Net's case identifier.
        target: Name of the target, or the user's own text.
        value: Its value in the combined label map.
        prompt: The target prompt that was used.
        context: Name of the context that was used.
        context_prompt: The context prompt that was used.
        shape: Voxels along (z, y, x).
        spacing: Voxel size along the same axes, in mm.
        affine: Rows of the (4, 4) matrix from indices (z, y, x) to world coordinates in mm (right, anterior,
            superior); None if the orientation of the image is unknown.
        version: Version of the format.
    """

    case: str
    target: str
    value: int
    prompt: str
    context: str
    context_prompt: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: tuple[tuple[float, float, float, float], ...] | None
    version: int = VERSION


def write_probabilities(answer: CaseAnswer, folder: Path) -> tuple[Path, ...]:
    """Write FOLDER/CASE/TARGET.b2nd for every target.

    Probabilities are the sigmoid of the logits, above 0.5 exactly where the logit is above 0. Outside the target's
    bounding box, where they are 0.5 or less, 0 is written.

    Returns:
        The written files, in the order of the answer's targets.
    """
    case_folder = find_case_folder(folder, answer.case, answer.file_name)
    names = name_files([target.file_title for target in answer.targets])
    files = tuple(case_folder / f"{name}{ENDING}" for name in names)
    for target, file in zip(answer.targets, files, strict=True):
        with open_new_file(file) as new:
            _write_map(new, answer, target)
    return files


def read_probabilities(file: str | Path) -> tuple[Any, MapDescription]:
    """Open a probability map.

    Returns:
        The array, (D, H, W) float16, read lazily: `array[40]` reads one slice, `array[:]` the whole map as a NumPy
        array. And its metadata.

    Raises:
        DataError: The file is missing, damaged, or was not written by this package.
    """
    path = Path(file)
    if not path.is_file():
        raise DataError(f"The file {path} does not exist. Give a {ENDING} file written by `--probabilities`.")
    try:
        array = blosc2.open(str(path), mode="r", deserialize="safe")
        content = json.loads(array.schunk.vlmeta[_KEY])
        if content.get("version") != VERSION:
            raise DataError(
                f"{path} has format version {content.get('version')!r}, expected {VERSION}. Install the release that "
                "wrote it, or predict again."
            )
        return array, TypeAdapter(MapDescription).validate_python(content)
    except DataError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise DataError(
            f"{path} is not a probability map ({type(error).__name__}: {error}). Give a file written by "
            "`--probabilities`."
        ) from error


def to_probabilities(logits: NDArray[np.float16]) -> Probabilities:
    """Convert logits to probabilities of the same shape; those of positive logits stay above 0.5 despite rounding."""
    from scipy.special import expit

    rounded = expit(logits.astype(np.float32)).astype(np.float16)
    above, below = np.maximum(rounded, _LEAST_ABOVE_HALF), np.minimum(rounded, np.float16(0.5))
    probabilities: Probabilities = np.where(logits > 0, above, below)
    return probabilities


def _write_map(file: Path, answer: CaseAnswer, target: TargetAnswer) -> None:
    shape = answer.geometry.shape
    chunks = tuple(min(size, _CHUNK) for size in shape)
    array = blosc2.zeros(
        shape,
        dtype=np.float16,
        chunks=chunks,
        blocks=tuple(min(size, most) for size, most in zip(chunks, _BLOCK, strict=True)),
        urlpath=str(file),
        mode="w",
        contiguous=True,
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1},
    )
    in_plane = target.box[1:]
    for part in _split_at_chunks(target.box[0], chunks[0]):
        inside = slice(part.start - target.box[0].start, part.stop - target.box[0].start)
        # Logits of a model that transposes its images are a view in another order, which Blosc2 does not take.
        array[(part, *in_plane)] = np.ascontiguousarray(to_probabilities(target.logits[inside]))
    array.schunk.vlmeta[_KEY] = _to_json(_describe(answer, target))


def _split_at_chunks(slices: slice, depth: int) -> list[slice]:
    """Split a range of slices at chunk boundaries, so that each chunk is compressed once with little memory."""
    starts = [slices.start, *range((slices.start // depth + 1) * depth, slices.stop, depth)]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], slices.stop], strict=True) if b > a]


def _describe(answer: CaseAnswer, target: TargetAnswer) -> MapDescription:
    affine = find_affine(answer.geometry)
    return MapDescription(
        case=answer.case,
        target=target.name,
        value=target.value,
        prompt=target.prompt,
        context=answer.context,
        context_prompt=answer.context_prompt,
        shape=answer.geometry.shape,
        spacing=answer.geometry.spacing,
        affine=None if affine is None else affine.tolist(),
    )


def _to_json(description: MapDescription) -> str:
    return json.dumps(asdict(description), ensure_ascii=False, default=int)  # NumPy integers are not JSON serialisable
