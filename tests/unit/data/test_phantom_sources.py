"""The three phantom datasets: labels that the registry merges, missing annotations, and complete label maps."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from duplus_nnunet.data.anatomy import LABELS
from duplus_nnunet.data.phantom import make_phantom
from duplus_nnunet.data.phantom_sources import (
    PHANTOM_CT,
    PHANTOM_MR,
    PHANTOM_PET,
    PHANTOM_SOURCES,
    TRUTH_FOLDER,
    PhantomSource,
    annotate,
    write_phantom_sources,
)
from duplus_nnunet.errors import DataError
from duplus_nnunet.prompt_registry import Entry, entry_texts, find_entry
from duplus_nnunet.prompt_registry.embedding import find_store

NAMES = [source.name for source in PHANTOM_SOURCES]


def shrink(source: PhantomSource) -> PhantomSource:
    """Scan the same bodies on a grid of twice as wide voxels."""
    scan = source.scan
    shape, spacing = (tuple(int(voxels) // 2 for voxels in scan.shape), tuple(2 * width for width in scan.spacing))
    return replace(source, scan=replace(scan, shape=shape, spacing=spacing))


SMALL = [shrink(source) for source in PHANTOM_SOURCES]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_phantom_sources(folder, training_cases=3, test_cases=2, seed=0, sources=SMALL)
    return folder


def read(file: Path) -> np.ndarray:
    return np.asarray(nibabel.load(file).dataobj)


def find(raw: Path, source: PhantomSource) -> Entry:
    folder = raw / source.dataset
    return find_entry(source.dataset, json.loads((folder / "dataset.json").read_text()), folder)


def checksums(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            read(path).tobytes() if path.suffix == ".gz" else path.read_bytes()
        ).hexdigest()
        for path in files
    }


def test_same_seed_gives_same_datasets_and_more_cases_change_none(raw: Path, tmp_path: Path) -> None:
    write_phantom_sources(tmp_path, training_cases=2, test_cases=1, seed=0, sources=SMALL)
    known = checksums(raw)
    volumes = {name: value for name, value in checksums(tmp_path).items() if name.endswith(".nii.gz")}
    assert volumes.items() <= known.items()


@pytest.mark.parametrize("source", SMALL, ids=NAMES)
def test_registry_reads_labels_of_any_spelling_as_structures(raw: Path, source: PhantomSource) -> None:
    entry = find(raw, source)
    assert {target.label: target.name for target in entry.targets} == dict(source.labels)
    assert entry.origin.endswith("prompts.yaml")
    assert {name: (context.modality, context.region) for name, context in entry.contexts.items()} == {
        source.context: (source.modality, "abdomen")
    }


def test_label_sets_overlap_and_together_name_every_structure() -> None:
    sets = [set(source.labels.values()) for source in PHANTOM_SOURCES]
    assert set.intersection(*sets) == {"liver"}
    assert set.union(*sets) == set(LABELS)
    assert not any(first <= second for first in sets for second in sets if first is not second)


def test_no_two_datasets_give_a_structure_the_same_key_and_value() -> None:
    pairs = [
        (label, value, structure)
        for source in PHANTOM_SOURCES
        for value, (label, structure) in enumerate(source.labels.items(), start=1)
    ]
    assert len(set(pairs)) == len(pairs)
    values = {structure: {value for _, value, name in pairs if name == structure} for structure in LABELS}
    assert len(values["liver"]) == 3


@pytest.mark.parametrize("source", SMALL, ids=NAMES)
def test_prompts_need_no_text_encoder(raw: Path, source: PhantomSource) -> None:
    store = find_store(None, None, None)
    assert store is not None
    assert [text for text in entry_texts(find(raw, source)) if text not in store] == []


def test_a_stomach_missing_from_mr_is_not_annotated_rather_than_absent(raw: Path) -> None:
    missing = {target.name: target.missing for target in find(raw, PHANTOM_MR).targets}
    assert missing["stomach"] == "not annotated"
    assert missing["liver"] == "absent"
    value = list(PHANTOM_MR.labels.values()).index("stomach") + 1
    folder = raw / PHANTOM_MR.dataset / "labelsTr"
    contoured = [value in read(folder / f"mr_train_{number:03d}.nii.gz") for number in range(3)]
    assert contoured == [True, True, False]


@pytest.mark.parametrize("source", SMALL, ids=NAMES)
def test_labels_are_the_truth_in_the_datasets_own_values(raw: Path, source: PhantomSource) -> None:
    folder = raw / source.dataset
    case = source.name_case("test", 0)
    labels, truth = read(folder / "labelsTs" / f"{case}.nii.gz"), read(folder / TRUTH_FOLDER / f"{case}.nii.gz")
    described = json.loads((folder / "dataset.json").read_text())
    for label, structure in source.labels.items():
        np.testing.assert_array_equal(labels == described["labels"][label], truth == LABELS[structure])
    assert set(np.unique(truth)) == {0, *LABELS.values()}


@pytest.mark.parametrize("number", range(2))
def test_test_cases_of_one_number_are_of_one_body(number: int) -> None:
    grid = {"shape": (20, 18, 16), "spacing": (13.0, 13.0, 13.0)}
    truths = [make_phantom(0, 1, number, replace(source.scan, **grid)).labels for source in PHANTOM_SOURCES]
    np.testing.assert_array_equal(truths[0], truths[1])
    np.testing.assert_array_equal(truths[0], truths[2])


@pytest.mark.parametrize("source", SMALL, ids=NAMES)
def test_written_test_case_is_that_body(raw: Path, source: PhantomSource) -> None:
    truth = read(raw / source.dataset / TRUTH_FOLDER / f"{source.name_case('test', 1)}.nii.gz")
    np.testing.assert_array_equal(truth, make_phantom(0, 1, 1, source.scan).labels)


def test_bodies_to_train_on_differ_between_datasets() -> None:
    grid = {"shape": (20, 18, 16), "spacing": (13.0, 13.0, 13.0)}
    first, second, third = (
        make_phantom(0, source.number, 0, replace(source.scan, **grid)).labels for source in PHANTOM_SOURCES
    )
    assert (first != second).mean() > 0.01
    assert (second != third).mean() > 0.01


def test_grids_differ_between_modalities() -> None:
    scans = [source.scan for source in PHANTOM_SOURCES]
    views = [tuple(np.multiply(scan.shape, scan.spacing)) for scan in scans]
    assert len({scan.spacing for scan in scans}) == len(set(views)) == 3


@pytest.mark.parametrize("source", SMALL, ids=NAMES)
def test_dataset_is_laid_out_as_nnunet_wants_it(raw: Path, source: PhantomSource) -> None:
    folder = raw / source.dataset
    cases = [source.name_case("train", number) for number in range(3)]
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == [f"{case}_0000.nii.gz" for case in cases]
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == [f"{case}.nii.gz" for case in cases]
    described = json.loads((folder / "dataset.json").read_text())
    assert described["numTraining"] == 3
    assert described["channel_names"] == {"0": source.scan.channel}
    assert list(described["labels"].values()) == list(range(len(source.labels) + 1))


def test_left_out_structures_become_background() -> None:
    truth = np.array([0, LABELS["liver"], LABELS["left kidney"], LABELS["aorta"]], dtype=np.uint8)
    assert annotate(truth, PHANTOM_MR).tolist() == [0, 1, 2, 0]
    assert annotate(truth, PHANTOM_MR, left_out=("left kidney",)).tolist() == [0, 1, 0, 0]
    assert annotate(truth, PHANTOM_PET).tolist() == [0, 3, 0, 1]


def test_existing_dataset_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / PHANTOM_CT.dataset).mkdir()
    with pytest.raises(DataError, match="exists already"):
        write_phantom_sources(tmp_path, 1, 1, seed=0, sources=SMALL)
