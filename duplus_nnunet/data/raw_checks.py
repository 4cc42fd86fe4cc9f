"""Checks a raw dataset before anything long begins: dataset.json, files, grids and label values."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet.data.image_headers import ImageHeader, inspect_image
from duplus_nnunet.data.label_maps import read_label_map
from duplus_nnunet.data.raw_dataset_files import RawCase, RawFiles, choose_reader, list_some, list_training_files
from duplus_nnunet.errors import DataError
from duplus_nnunet.progress import track
from duplus_nnunet.prompt_registry.dataset_labels import (
    BACKGROUND,
    IGNORE,
    find_label_problems,
    list_declared_values,
)

_SHOWN = 20
# Largest distance between corresponding corners of two grids, in voxels.
_FARTHEST = 0.5
# nnU-Net refuses channels whose spacings differ by more.
_SPACING_TOLERANCE = 1e-5
# nnU-Net's reorienting reader of SimpleITK writes 8 bits, and does not accept 255.
_EIGHT_BITS, _MOST_IN_EIGHT_BITS = "SimpleITKIOWithReorient", 254
_REORIENTING = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")

_OTHER_ORDER = (
    "they fill the same space, but their voxels are stored in another order (a flipped or exchanged axis), and nnU-Net "
    "compares voxels by their order alone: store both alike, or add "
    '"overwrite_image_reader_writer": "SimpleITKIOWithReorient" to dataset.json'
)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RawCheck:
    """The result of a check.

    Attributes:
        files: The cases that are complete.
        reader: Name of nnU-Net's reader for them; "" if there is none.
        problems: Why the dataset cannot be used, a sentence each.
        notes: What is doubtful, a sentence each.
    """

    files: RawFiles
    reader: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def require(self, where: str | Path) -> None:
        """Raise a DataError that lists the problems, if there are any.

        Args:
            where: The dataset, for the message.
        """
        if self.problems:
            raise DataError(describe_problems(where, self.problems))


def describe_problems(where: str | Path, problems: Sequence[str]) -> str:
    """Write problems as one message, the first twenty of them."""
    short = [problem.replace(f"{where}{os.sep}", "") for problem in problems]
    if len(short) == 1:
        return f"{where}: {short[0]}"
    lines = [f"  - {problem}" for problem in short[:_SHOWN]]
    more = [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    return "\n".join([f"{where} has {len(problems)} problems:", *lines, *more])


def check_raw_files(folder: Path, dataset_json: Mapping[str, Any], processes: int, strict: bool = False) -> RawCheck:
    """Check dataset.json, the list of files, and the headers of all training images and label maps.

    No voxel is read.

    Args:
        folder: The raw dataset's folder.
        dataset_json: Its parsed dataset.json.
        processes: Number of files that are opened at a time.
        strict: Whether to require what only nnU-Net's `--verify_dataset_integrity` requires: consecutive label values
            and the right numTraining.
    """
    problems = [f"dataset.json: {problem}" for problem in find_json_problems(dataset_json, strict)]
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str) or not _has_channels(dataset_json):
        return RawCheck(RawFiles({}), "", tuple(problems))
    files = list_training_files(folder, dataset_json, ending)
    problems += files.problems
    counted = _check_count(dataset_json, len(files.cases)) if not files.problems else []
    problems += counted if strict else []
    try:
        reader = choose_reader(dataset_json, ending)
    except DataError:
        return RawCheck(files, "", tuple(problems), files.notes)
    reader = _find_reader(reader, dataset_json, files)
    checked = run_parallel(lambda item: _check_grids(*item, reader), files.cases.items(), processes, "headers")
    problems += [problem for found, _ in checked for problem in found]
    notes = [*files.notes, *([] if strict else counted), *(note for _, doubts in checked for note in doubts)]
    return RawCheck(files, reader, tuple(problems), tuple(notes))


def check_label_maps(checked: RawCheck, dataset_json: Mapping[str, Any], reader: type, processes: int) -> RawCheck:
    """Read all label maps of a dataset without other problems, and check their values.

    Args:
        checked: The result of check_raw_files, without problems.
        dataset_json: The dataset's dataset.json.
        reader: nnU-Net's reader class.
        processes: Number of label maps that are read at a time.
    """
    known = list_declared_values(dataset_json["labels"])

    def examine(item: tuple[str, RawCase]) -> tuple[frozenset[int], str]:
        try:
            label_map, _ = read_label_map(item[1].label, reader, known)
        except DataError as error:
            return frozenset(), str(error)
        return label_map.values, ""

    results = run_parallel(examine, checked.files.cases.items(), processes, "labels")
    problems = [problem for _, problem in results if problem]
    occurring = frozenset(value for values, _ in results for value in values)
    notes: list[str] = []
    if not problems:
        problems += _require_foreground(dataset_json["labels"], occurring)
        notes += _describe_absent(dataset_json["labels"], occurring)
    return RawCheck(checked.files, checked.reader, tuple(problems), tuple(notes))


def run_parallel(work: Callable[[Item], Result], items: Collection[Item], processes: int, what: str) -> list[Result]:
    """Do some work on each case, several at a time in threads, since reading files leaves the interpreter free.

    Args:
        work: What is done.
        items: One for each case.
        processes: Number of threads.
        what: What is read, for the progress that a terminal shows.
    """
    with ThreadPoolExecutor(max(1, processes)) as pool:
        return list(track(pool.map(work, items), len(items), f"reading {what}", "case"))


def find_json_problems(dataset_json: Mapping[str, Any], strict: bool = False) -> list[str]:
    """Find what is wrong with the content of a dataset.json; a sentence each."""
    problems = find_label_problems(dataset_json.get("labels"), dataset_json.get("regions_class_order"))
    if not _has_channels(dataset_json):
        found = dataset_json.get("channel_names", dataset_json.get("modality"))
        problems.append(
            f'"channel_names" is {found!r}; expected names by channel number, from "0" on. Write for example '
            '"channel_names": {"0": "CT"}.'
        )
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        problems.append(f'"file_ending" is {ending!r}; expected an ending such as ".nii.gz". Add it.')
    else:
        problems += _check_reader(dataset_json, ending)
    if strict and not find_label_problems(dataset_json.get("labels"), dataset_json.get("regions_class_order")):
        problems += _check_consecutive(dataset_json["labels"])
    return problems


def _has_channels(dataset_json: Mapping[str, Any]) -> bool:
    channels = dataset_json.get("channel_names", dataset_json.get("modality"))
    if not isinstance(channels, Mapping) or not channels:
        return False
    return {str(key) for key in channels} == {str(number) for number in range(len(channels))}


def _check_reader(dataset_json: Mapping[str, Any], ending: str) -> list[str]:
    try:
        reader = choose_reader(dataset_json, ending)
    except DataError as error:
        return [str(error)]
    labels = dataset_json.get("labels")
    if reader != _EIGHT_BITS or find_label_problems(labels, dataset_json.get("regions_class_order")):
        return []
    largest = max(list_declared_values(labels or {}))
    if largest <= _MOST_IN_EIGHT_BITS:
        return []
    return [
        f"the reader {reader} writes label maps in 8 bits, but the largest label value is {largest}. Renumber the "
        f"labels to at most {_MOST_IN_EIGHT_BITS}, or use another reader."
    ]


def _check_consecutive(labels: Mapping[str, Any]) -> list[str]:
    values = sorted(list_declared_values(labels))
    if values == list(range(len(values))):
        return []
    return [
        f"the label values are {', '.join(map(str, values))}; --verify_dataset_integrity requires 0, 1, 2 and so on "
        "without a gap. Renumber the labels, or leave the option out: DuPLUS does not need consecutive values."
    ]


def _check_count(dataset_json: Mapping[str, Any], count: int) -> list[str]:
    declared = dataset_json.get("numTraining")
    if declared in (None, count):
        return []
    return [f'dataset.json: "numTraining" is {declared!r}, but there are {count} training cases. Correct the number.']


def _find_reader(name: str, dataset_json: Mapping[str, Any], files: RawFiles) -> str:
    """Return the reader that nnU-Net will use: the next one if the first image cannot be read by the first reader."""
    first = next(iter(files.cases.values()), None)
    if (
        first is None
        or name != "SimpleITKIO"
        or dataset_json.get("overwrite_image_reader_writer") not in (None, "None")
    ):
        return name
    if not _is_readable(first.images[0], name) and _is_readable(first.images[0], "NibabelIO"):
        return "NibabelIO" if first.images[0].name.endswith(".nii.gz") else name
    return name


def _is_readable(file: Path, reader: str) -> bool:
    try:
        inspect_image(file, reader)
    except DataError:
        return False
    return True


def _check_grids(name: str, case: RawCase, reader: str) -> tuple[list[str], list[str]]:
    """Compare the grids of a case's images and label map; returns problems and doubts."""
    headers: dict[Path, ImageHeader] = {}
    problems, doubts = [], []
    for file in (*case.images, case.label):
        try:
            headers[file] = inspect_image(file, reader)
        except DataError as error:
            problems.append(str(error))
        else:
            doubts += [f"{file}: {warning}" for warning in headers[file].warnings]
    if problems:
        return problems, doubts
    first, *others = headers
    for file in others:
        header, other = headers[first], headers[file]
        difference = find_grid_difference(header, other, reader in _REORIENTING)
        if not difference and file != case.label and not _equal_spacing(header, other):
            difference = f"the voxel sizes are {_join(header.spacing)} and {_join(other.spacing)} mm (z, y, x)"
        if difference:
            problems.append(
                f"case {name!r}: {first} and {file.name} lie on different grids: {difference}. Resample one to the "
                "grid of the other."
            )
    return problems, doubts


def find_grid_difference(header: ImageHeader, other: ImageHeader, turned: bool = False) -> str:
    """Compare two grids.

    Positions are compared if both files say how they lie in the patient.

    Args:
        header: The first grid.
        other: The second grid.
        turned: Whether the reader turns each image by its own header. Then positions of files that do not say how
            they lie are compared too, and it does not matter in which order voxels are stored.

    Returns:
        The difference; "" if corresponding corners are within half a voxel of each other.
    """
    if header.shape != other.shape:
        return f"{_join(header.shape)} and {_join(other.shape)} voxels (z, y, x)"
    if not np.allclose(header.spacing, other.spacing, rtol=_FARTHEST / max(header.shape), atol=0):
        return f"the voxel sizes are {_join(header.spacing)} and {_join(other.spacing)} mm (z, y, x)"
    if not (turned or (header.oriented and other.oriented)):
        return ""
    corners, others = _find_corners(header), _find_corners(other)
    tolerance = _FARTHEST * min(header.spacing)
    distances = np.linalg.norm(corners - others, axis=1)
    if distances.max() <= tolerance:
        return ""
    if max(np.linalg.norm(others - corner, axis=1).min() for corner in corners) <= tolerance:
        return "" if turned else _OTHER_ORDER
    return (
        f"their corners are up to {distances.max():.4g} mm apart, origins {_join(header.origin)} and "
        f"{_join(other.origin)} mm (x, y, z)"
    )


def _equal_spacing(header: ImageHeader, other: ImageHeader) -> bool:
    return bool(np.allclose(header.spacing, other.spacing, rtol=_SPACING_TOLERANCE))


def _find_corners(header: ImageHeader) -> NDArray[np.float64]:
    """Return the positions of the eight corner voxels' centres, (8, 3), in mm."""
    extent = np.array([(size - 1) * width for size, width in zip(header.shape, header.spacing, strict=True)][::-1])
    steps = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * extent
    corners: NDArray[np.float64] = steps @ np.reshape(header.direction, (3, 3)).T + np.array(header.origin)
    return corners


def _join(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _require_foreground(labels: Mapping[str, Any], occurring: frozenset[int]) -> list[str]:
    foreground = occurring - {0, labels.get(IGNORE, 0)}
    if foreground:
        return []
    return ["all label maps hold background alone, so there is nothing to learn. Check how they were exported."]


def _describe_absent(labels: Mapping[str, Any], occurring: frozenset[int]) -> list[str]:
    """Name the labels that no label map holds."""
    absent = [
        repr(name)
        for name, value in labels.items()
        if name not in (BACKGROUND, IGNORE) and not list_declared_values({name: value}) & occurring - {0}
    ]
    return [f"in no case: {list_some(absent)}. The network cannot learn what no label map holds."] if absent else []
