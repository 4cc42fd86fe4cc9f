"""Finds what a folder of label maps holds: targets, images, patients and contexts.

The folder may be one of predictions of this package, of any other program in nnU-Net's format, or of the annotations of
a raw dataset.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from duplus_nnunet.data.case_table import CaseTable
from duplus_nnunet.errors import DataError, describe_unknown
from duplus_nnunet.outputs.manifest import COMPLETE, CaseRecord, Manifest
from duplus_nnunet.outputs.manifest import NAME as MANIFEST_NAME
from duplus_nnunet.plans_section import PLANS_KEY
from duplus_nnunet.prompt_registry.dataset_labels import channel_names, check_label_values, list_declared_values
from duplus_nnunet.prompt_registry.names import normalise
from duplus_nnunet.prompt_registry.raw_dataset import list_images
from duplus_nnunet.reporting.evaluation import find_reader, find_table, read_plans
from duplus_nnunet.reporting.predicted_values import NOT_TARGETS, Region, read_labels, read_region
from duplus_nnunet.reporting.validation import list_label_maps

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".tif", ".png", ".bmp")
_ANNOTATIONS = ("labelsTr", "labelsTs", "labelsVal")
_SHOWN = 10


@dataclass(frozen=True)
class SavedCase:
    """One image of a folder of label maps.

    Attributes:
        name: nnU-Net's case identifier.
        file: Its label map.
        targets: Names of the targets that were asked for, or annotated, in it; others are unknown, not absent.
        images: Files of its channels in rising order; empty if no images were given.
        patient: The patient; that of the case table, else the case.
        source: Name of its source; empty if unknown.
        context: Name of its context; empty if unknown.
        context_prompt: The context prompt; empty if unknown.
        warnings: Warnings that were shown when it was predicted.
    """

    name: str
    file: Path
    targets: tuple[str, ...]
    images: tuple[Path, ...] = ()
    patient: str = ""
    source: str = ""
    context: str = ""
    context_prompt: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelFolder:
    """A folder of label maps.

    Attributes:
        folder: The folder.
        reader: nnU-Net's image reader class.
        regions: Label values of each target, by name.
        known: All values that a label map may hold.
        channels: Names of the channels of its images; empty if unknown.
        cases: Its images, by name.
        notes: Remarks for the reader of the results, one sentence each.
    """

    folder: Path
    reader: type
    regions: Mapping[str, Region]
    known: frozenset[int]
    channels: tuple[str, ...]
    cases: tuple[SavedCase, ...]
    notes: tuple[str, ...] = ()


def open_label_folder(
    folder: Path, labels: Path | None = None, home: Path | None = None, images: Path | None = None
) -> LabelFolder:
    """Find the targets and images of a folder of label maps.

    Args:
        folder: Folder of label maps, named CASE plus the file ending.
        labels: File of labels, as in `read_labels`; None: the dataset.json in the folder or in the one above it.
        home: Folder of the model or dataset, whose case table gives patients and contexts; None: that of the images,
            or the one above the label maps.
        images: Folder of the images; None: none are read.

    Raises:
        DataError: The folder has no label map, its labels are not known, or no image belongs to it.
    """
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist. Give a folder of label maps.")
    labels_file = labels or _find_labels(folder)
    content = read_labels(labels_file)
    check_label_values(content["labels"], None, labels_file, ordered=False)
    ending = content.get("file_ending") or _find_ending(folder)
    regions = _name_targets(content)
    manifest = _read_manifests(folder)
    cases = [
        _describe_case(file, folder / f"{file}{ending}", tuple(regions), manifest)
        for file in list_label_maps(folder, ending)
        if not file.startswith(".")
    ]
    if not cases:
        raise DataError(f"The folder {folder} has no label map ending in {ending!r}. Give a folder of label maps.")
    unpredicted = _list_unpredicted(manifest, {case.name for case in cases})
    cases, notes = _add_images(cases, images, ending)
    cases, more = _add_patients(cases, folder, home or _find_home(folder, images))
    reader = find_reader(read_plans(folder), {**content, "file_ending": ending}, cases[0].file)
    known = list_declared_values(content["labels"])
    return LabelFolder(
        folder, reader, regions, known, channel_names(content), tuple(cases), (*unpredicted, *notes, *more)
    )


def _find_labels(folder: Path) -> Path:
    places = [folder / "dataset.json", folder.resolve().parent / "dataset.json"]
    for file in places:
        if file.is_file():
            return file
    raise DataError(
        f"There is no dataset.json in {folder} or the folder above it, so the meaning of the labels is not known. Give "
        "a file of names and values with --labels."
    )


def _find_ending(folder: Path) -> str:
    """Find the file ending of label maps that no dataset.json names."""
    names = [file.name for file in folder.iterdir() if file.is_file()]
    found = sorted({next(filter(name.endswith, _ENDINGS), "") for name in names} - {""})
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise DataError(
            f"{folder} should hold label maps of one file ending; found: {listed}, of {', '.join(_ENDINGS)}. Give a "
            'dataset.json with "file_ending" by --labels, or a folder with label maps alone.'
        )
    return found[0]


def _name_targets(content: Mapping[str, Any]) -> dict[str, Region]:
    """Map the name of each target to its label values, by the names that predictions of this package declare."""
    named = {label: name for name, label in content.get(PLANS_KEY, {}).get("targets", {}).items()}
    return {
        named.get(label, label): read_region(value)
        for label, value in content["labels"].items()
        if label not in NOT_TARGETS and value != 0
    }


def _read_manifests(folder: Path) -> Manifest | None:
    """Read the manifest of a folder, with those of its parts if several processes predicted it."""
    places = [folder, *sorted(file.parent for file in folder.glob(f"part_*_of_*/{MANIFEST_NAME}"))]
    found = [manifest for place in places if (manifest := Manifest.read(place)) is not None]
    if not found:
        return None
    cases = {name: record for manifest in found for name, record in manifest.cases.items()}
    contexts = {name: prompt for manifest in found for name, prompt in manifest.run.contexts.items()}
    return Manifest(replace(found[0].run, contexts=contexts), cases)


def _describe_case(name: str, file: Path, targets: tuple[str, ...], manifest: Manifest | None) -> SavedCase:
    """Describe a label map by the manifest's record of it, if there is one."""
    if manifest is None:
        return SavedCase(name, file, targets, patient=name)
    case, record = _find_record(name, manifest.cases)
    if record is None or record.status != COMPLETE:
        reason = "does not list it" if record is None else f"lists it as {record.status}"
        return SavedCase(case, file, targets, patient=case, warnings=(f"The manifest {reason}.",))
    asked = {normalise(target) for target in record.prompts}
    chosen = tuple(target for target in targets if normalise(target) in asked) if asked else targets
    context = record.context or ""
    prompt = manifest.run.contexts.get(context, "")
    return SavedCase(case, file, chosen, (), case, "", context, prompt, record.warnings)


def _find_record(name: str, cases: Mapping[str, CaseRecord]) -> tuple[str, CaseRecord | None]:
    """Find the case that a label map belongs to; its file has another name if the identifier could not be one."""
    for case, record in cases.items():
        if record.file_name == name:
            return case, record
    return name, cases.get(name)


def _list_unpredicted(manifest: Manifest | None, cases: Collection[str]) -> list[str]:
    """Name the cases of the manifest that have no label map, such as those that failed."""
    listed = manifest.cases if manifest is not None else {}
    missing = [f"{name} ({record.status})" for name, record in listed.items() if name not in cases]
    return [f"{len(missing)} case(s) of the manifest have no label map: {_list_some(missing)}."] if missing else []


def _add_images(cases: Sequence[SavedCase], folder: Path | None, ending: str) -> tuple[list[SavedCase], list[str]]:
    """Add the files of the images, named CASE_0000 and so on, or CASE alone, with a note on those that are missing."""
    if folder is None:
        return list(cases), []
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist. Give the folder of the images with --images.")
    numbered = list_images(folder, ending, skip_unnumbered=True)
    added = []
    for case in cases:
        single = folder / f"{case.name}{ending}"
        files = [file for _, file in sorted(numbered.get(case.name, {}).items())]
        added.append(replace(case, images=tuple(files or ([single] if single.is_file() else []))))
    missing = [case.name for case in added if not case.images]
    if len(missing) == len(added):
        raise DataError(
            f"{folder} has no image of any of the {len(cases)} cases: expected files such as "
            f"{cases[0].name}_0000{ending}. Give the folder that the predictions were made from with --images."
        )
    return added, [f"{len(missing)} case(s) have no image: {_list_some(missing)}."] if missing else []


def _find_home(folder: Path, images: Path | None) -> Path | None:
    """Find the dataset of the images, or that of the label maps."""
    places = [*([images] if images else []), folder]
    homes = [place.resolve().parent for place in places] + [folder]
    return next((home for home in homes if (home / "dataset.json").is_file()), None)


def _add_patients(cases: Sequence[SavedCase], folder: Path, home: Path | None) -> tuple[list[SavedCase], list[str]]:
    """Add patients, sources and contexts of the case table; annotations are limited to the annotated targets."""
    if home is None:
        return list(cases), []
    table, note = find_table(home, read_plans(home))
    annotations = folder.name in _ANNOTATIONS and folder.resolve().parent == home.resolve()
    if table is None:
        unknown = f"{note} A missing label may mean that the target is absent, or that it was not annotated."
        return list(cases), [unknown] if annotations else []
    added = [_add_patient(case, table, annotations) for case in cases]
    unlisted = [case.name for case in cases if case.name not in table.cases and case.name not in table.tests]
    notes = [f"{len(unlisted)} case(s) are not in the case table: {_list_some(unlisted)}."] if unlisted else []
    return added, ([note] if annotations else []) + notes


def _add_patient(case: SavedCase, table: CaseTable, annotations: bool) -> SavedCase:
    entry = table.cases.get(case.name) or table.tests.get(case.name)
    if entry is None:
        return case
    context = case.context or table.sources[entry.source].context
    added = replace(case, patient=entry.patient, source=entry.source, context=context)
    if not annotations:
        return added
    known = {normalise(target): target for target in case.targets}
    for target in entry.annotated:
        if normalise(target) not in known:
            raise DataError(
                f"The case table annotates {target!r} in {case.name!r}: "
                f"{describe_unknown('label', target, case.targets)} Give the labels' names with --labels."
            )
    return replace(added, targets=tuple(known[normalise(target)] for target in entry.annotated))


def _list_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
