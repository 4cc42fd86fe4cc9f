"""Makes a raw dataset of nnU-Net from DICOM series and the structures that were drawn on them (RTSTRUCT, SEG)."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duplus_nnunet import __version__
from duplus_nnunet.data.case_table import Case, write_case_table
from duplus_nnunet.data.composing.splits import FILE_NAME as SPLITS
from duplus_nnunet.data.composing.splits import split_cases
from duplus_nnunet.data.composing.write import open_new_folder
from duplus_nnunet.data.default_table import make_table
from duplus_nnunet.dicom.drawn_cases import DrawnCase, find_drawn_cases
from duplus_nnunet.dicom.naming import name_case
from duplus_nnunet.dicom.reading import compact, read_volume
from duplus_nnunet.dicom.source_slices import SourceSlices, read_source_slices
from duplus_nnunet.dicom.structures import Structure, read_structures
from duplus_nnunet.dicom.tilt import straighten_labels
from duplus_nnunet.errors import DataError, list_nearest_first
from duplus_nnunet.files import open_new_file, write_text
from duplus_nnunet.prompt_registry.draft_file import write_draft
from duplus_nnunet.prompt_registry.drafting import draft_entry
from duplus_nnunet.prompt_registry.finding import FILE_NAME as PROMPTS
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.structure_names import match_structures

RECORD = "conversion.json"
_ENDING = ".nii.gz"
_CHANNELS = {"CT": "CT", "MR": "MRI", "PT": "PET"}
_FOLDS, _SEED = 5, 12345


@dataclass(frozen=True)
class Choices:
    """What a user decides.

    Attributes:
        by_hand: Names of structures and the targets that they mean.
        precedence: Targets, of which an earlier one keeps the voxels that it shares with a later one.
        keep_ids: Whether cases are named by the patient ID, and the record keeps the names of all structures.
    """

    by_hand: tuple[tuple[str, str], ...] = ()
    precedence: tuple[str, ...] = ()
    keep_ids: bool = False


@dataclass(frozen=True)
class DrawnDataset:
    """What was written.

    Attributes:
        folder: The raw dataset.
        cases: Notes on each case, by its name.
        left_out: Why cases were left out, by name.
        targets: By target, in how many cases it is.
        matched: Targets by the name of a structure.
        unmatched: Why structures were left out, by name.
    """

    folder: Path
    cases: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]
    targets: Mapping[str, int]
    matched: Mapping[str, str]
    unmatched: Mapping[str, str]


@dataclass
class _Collected:
    """What is learned case by case."""

    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    present: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    matched: dict[str, str] = field(default_factory=dict)
    unmatched: dict[str, str] = field(default_factory=dict)


def convert_drawn(source: Path, files: Sequence[Path], folder: Path, choices: Choices) -> DrawnDataset:
    """Write the raw dataset of the series in a folder; it is there only when it is whole.

    Cases that cannot be converted are left out and reported. A target that was not drawn in a case counts there as not
    annotated, which `prompts.yaml` says. Names of files hold nothing of a patient, unless `keep_ids` is chosen.

    Args:
        source: Folder with the series of one patient or of several.
        files: Files of structures; empty: all in the folder.
        folder: The dataset's folder, which must not exist yet.
        choices: What the user decided.

    Raises:
        DataError: The folder exists, no case can be converted, or the series are of several modalities.
        HostError: The extra `dicom` is not installed.
    """
    if folder.exists():
        raise DataError(f"{folder} exists. Choose another number with -d, or remove it.")
    found, collected = find_drawn_cases(source, files), _Collected()
    names = [name_case(case.series, choices.keep_ids) for case in found]
    targets = _match_all(found, choices, collected)
    channel = _choose_channel(found)
    numbers = {target: number for number, target in enumerate(targets, 1)}
    counts: Counter[str] = Counter()
    with open_new_folder(folder) as new:
        for name, case in zip(names, found, strict=True):
            try:
                counts.update(_write_case(new, name, case, numbers, choices, collected))
            except DataError as error:
                collected.left_out[name] = _hide_paths(str(error), case)
        if not collected.notes:
            reasons = "\n".join(f"  {name}: {why}" for name, why in collected.left_out.items())
            raise DataError(f"No case could be converted:\n{reasons}")
        cases = dict(zip(names, found, strict=True))
        _write_descriptions(new, folder.name, channel, numbers, collected, cases)
        _write_json(new / RECORD, _make_record(collected, cases, choices))
    return DrawnDataset(
        folder,
        collected.notes,
        collected.left_out,
        {target: counts[target] for target in targets},
        collected.matched,
        collected.unmatched,
    )


def _match_all(found: Sequence[DrawnCase], choices: Choices, collected: _Collected) -> list[str]:
    """Find the targets of the structures of all cases; return them in alphabetical order.

    Raises:
        DataError: No structure has a target, or one that was decided by hand is in no file.
    """
    names = {name for case in found for name in case.names}
    for name, _ in choices.by_hand:
        if name.casefold() not in {other.casefold() for other in names}:
            near = ", ".join(map(repr, list_nearest_first(name, names)[:3]))
            raise DataError(f"--structure names {name!r}, which is in no file. Nearest: {near}.")
    # All names together: `Kidney_L` means a side because `Kidney_R` is there, if only in another patient.
    for name, match in match_structures(sorted(names), choices.by_hand).items():
        if match.target:
            collected.matched[name] = match.target
        else:
            collected.unmatched[name] = match.reason
    targets = sorted(set(collected.matched.values()))
    if not targets:
        listed = "\n".join(f"  {name}: {why}" for name, why in sorted(collected.unmatched.items()))
        raise DataError(
            f"No structure is a target that the registry knows. Name targets by --structure 'NAME=TARGET':\n{listed}"
        )
    for name in choices.precedence:
        if name not in targets:
            near = ", ".join(map(repr, list_nearest_first(name, targets)[:3]))
            raise DataError(f"--precedence names {name!r}, which no structure is. Nearest: {near}.")
    return targets


def _write_case(
    new: Path, name: str, case: DrawnCase, numbers: Mapping[str, int], choices: Choices, collected: _Collected
) -> list[str]:
    """Write image and label map of a case; return the targets in it."""
    volume = read_volume(case.series)
    source = read_source_slices(case.series.files)
    if len(source.slices) != len(case.series.slices):
        raise DataError("its files hold slices of other volumes too, which is not read with structures")
    structures = read_structures(case.structures, source)
    wanted = [(collected.matched[one.name], one) for one in structures if one.name in collected.matched]
    for target, structure in wanted:
        if structure.problem:
            raise DataError(f"{target}: {structure.problem}. Join them in the program that drew them")
    labels = _draw_labels(wanted, source, numbers, choices.precedence)
    if case.series.tilt:
        labels = straighten_labels(labels, case.series)
    present = [target for target, structure in wanted if structure.mask.any()]
    if not present:
        raise DataError("none of its structures is a target with a voxel")
    empty = [f"{target}: empty" for target, structure in wanted if not structure.mask.any()]
    _write_nifti(new / "imagesTr" / f"{name}_0000{_ENDING}", compact(volume.values), volume.affine)
    _write_nifti(new / "labelsTr" / f"{name}{_ENDING}", labels, volume.affine)
    collected.present[name] = tuple(present)
    drawn = [f"{target}: {note}" for target, structure in wanted for note in structure.notes]
    collected.notes[name] = (*volume.notes, *empty, *drawn)
    return present


def _hide_paths(text: str, case: DrawnCase) -> str:
    """Take the paths of a case out of a message: folders are often named by the patient."""
    folders = {case.structures.file.parent, *(file.parent for file in case.series.files)}
    names = {str(case.structures.file): "the file of structures"} | {str(folder): "its folder" for folder in folders}
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text


def _make_record(collected: _Collected, cases: Mapping[str, DrawnCase], choices: Choices) -> dict[str, Any]:
    """Make the record of the conversion; names of structures that no registry has may name a patient."""
    by_hand = {normalise(name) for name, _ in choices.by_hand}
    registered = {
        name: target
        for name, target in sorted(collected.matched.items())
        if choices.keep_ids or normalise(name) not in by_hand
    }
    left_out = dict(sorted(collected.unmatched.items()))
    return {
        "recipe": "dicom",
        "version": __version__,
        "structures": registered,
        "targets_by_hand": sorted({target for _, target in choices.by_hand}),
        "structures_left_out": left_out if choices.keep_ids else len(left_out),
        "left_out": {
            name: why if choices.keep_ids else _hide_names(why, cases[name], registered)
            for name, why in collected.left_out.items()
        },
        "notes": {case: list(notes) for case, notes in collected.notes.items() if notes},
    }


def _hide_names(text: str, case: DrawnCase, kept: Mapping[str, str]) -> str:
    """Take the names of structures out of a message, apart from those that are kept."""
    for number, name in enumerate(case.names, 1):
        if name not in kept:
            text = text.replace(repr(name), f"structure {number}")
    return text


def _draw_labels(
    wanted: Sequence[tuple[str, Structure]],
    source: SourceSlices,
    numbers: Mapping[str, int],
    precedence: Sequence[str],
) -> NDArray[np.uint8]:
    """Draw a label map; voxels of several targets belong to the one that precedes.

    Raises:
        DataError: Two structures are one target, or targets overlap of which none precedes.
    """
    if len(numbers) > np.iinfo(np.uint8).max:
        raise DataError(f"{len(numbers)} targets are more than the 255 that a label map holds here.")
    rank = {target: number for number, target in enumerate(precedence)}
    masks: dict[str, Structure] = {}
    for target, structure in wanted:
        if target in masks:
            raise DataError(
                f"the structures {masks[target].name!r} and {structure.name!r} are both {target!r}. Map one of them to "
                "another target by --structure."
            )
        masks[target] = structure
    labels = np.zeros(source.shape, np.uint8)
    # From the last in precedence to the first, which is drawn over the others.
    names = {number: target for target, number in numbers.items()}
    for target in sorted(masks, key=lambda name: rank.get(name, len(rank)), reverse=True):
        mask = masks[target].mask
        shared = labels[mask]
        if target not in rank and shared.any():
            other = names[int(shared[shared > 0][0])]
            raise DataError(
                f"{target!r} and {other!r} share {np.count_nonzero(shared)} voxels. Say which one keeps them by "
                f"--precedence {target!r} or --precedence {other!r}."
            )
        labels[mask] = numbers[target]
    return labels


def _choose_channel(found: Sequence[DrawnCase]) -> str:
    modalities = sorted({case.modality for case in found})
    if len(modalities) > 1 or modalities[0] not in _CHANNELS:
        raise DataError(
            f"The series are of the modality {' and '.join(modalities)}; expected one of {', '.join(_CHANNELS)} for "
            "all. Convert each modality to a dataset of its own, and compose them."
        )
    return _CHANNELS[modalities[0]]


def _write_descriptions(
    new: Path,
    name: str,
    channel: str,
    numbers: Mapping[str, int],
    collected: _Collected,
    cases: Mapping[str, DrawnCase],
) -> None:
    """Write dataset.json, prompts.yaml, the table of cases, and folds by patient if some have several."""
    content = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **numbers},
        "numTraining": len(collected.notes),
        "file_ending": _ENDING,
    }
    _write_json(new / "dataset.json", content)
    entry = draft_entry(name, content, None)
    entry = replace(entry, targets=tuple(replace(target, missing="not annotated") for target in entry.targets))
    write_text(new / PROMPTS, write_draft(entry))
    patients = _number_patients({case: cases[case] for case in collected.notes})
    values = {case: {numbers[target] for target in present} for case, present in collected.present.items()}
    write_case_table(make_table(entry, content, values, patients=patients), new)
    if 1 < len(set(patients.values())) < len(patients):
        table = {case: Case(name, patient, (), ()) for case, patient in patients.items()}
        _write_json(new / SPLITS, split_cases(table, min(_FOLDS, len(set(patients.values()))), _SEED))


def _number_patients(cases: Mapping[str, DrawnCase]) -> dict[str, str]:
    """Return a number for the patient of each case; without a patient ID, each case is a patient."""
    numbers: dict[str, str] = {}
    return {
        case: numbers.setdefault(found.patient or case, f"patient {len(numbers) + 1}") for case, found in cases.items()
    }


def _write_nifti(file: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> None:
    import nibabel

    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]])
    image.header.set_xyzt_units("mm")
    with open_new_file(file) as new:
        nibabel.save(image, new)


def _write_json(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def describe_dataset(done: DrawnDataset) -> Iterator[str]:
    """Describe what was written, in lines."""
    for name, target in sorted(done.matched.items()):
        yield f"structure {name!r}: {target}"
    for name, why in sorted(done.unmatched.items()):
        yield f"left out: structure {name!r}: {why}"
    yield from (f"note: {case}: {note}" for case, notes in done.cases.items() for note in notes)
    yield f"Wrote {done.folder}: {len(done.cases)} cases."
