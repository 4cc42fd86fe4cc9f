"""Each dataset is converted from a small tree of its real names: label values, grids, contexts and patients."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from duplus_nnunet.cli import main
from duplus_nnunet.conversion.recipe import list_recipes, read_recipe
from duplus_nnunet.prompt_registry.case_contexts import find_case_contexts
from duplus_nnunet.prompt_registry.checking import check_raw_dataset
from duplus_nnunet.prompt_registry.drafting import DRAFTED
from duplus_nnunet.prompt_registry.finding import search_entry
from duplus_nnunet.prompt_registry.raw_dataset import open_raw_dataset

from .planning import check_plans, plan
from .trees import AFFINE, make_image, make_labels, save, save_masks, save_pair, save_series, write_csv

Convert = Callable[..., Path]
Check = Callable[[Path], str]


@pytest.fixture
def download(tmp_path: Path) -> Path:
    folder = tmp_path / "download"
    folder.mkdir()
    return folder


@pytest.fixture
def convert(tmp_path: Path, download: Path, monkeypatch: pytest.MonkeyPatch) -> Convert:
    """Convert the download by a recipe, and return the dataset's folder."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")

    def run(recipe: str, *options: str, expected: int = 0) -> Path:
        assert main(["convert", recipe, str(download), "-d", "300", *options]) == expected
        return next(iter(raw.glob("Dataset300_*")), raw)

    return run


def read(folder: Path, name: str) -> Any:
    return nibabel.load(folder / name)


def values(folder: Path, name: str) -> list[int]:
    return np.unique(np.asarray(read(folder, name).dataobj)).tolist()


def content(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check the prompts of a dataset and plan it; return the notes of the check."""

    def run(folder: Path) -> str:
        result = check_raw_dataset(open_raw_dataset(str(folder)))
        assert not result.problems
        assert "drafted" not in result.files[0]
        table = content(folder, "duplus_cases.json")
        contexts = check_plans(folder, plan(folder, monkeypatch))
        assert contexts == Counter(table["sources"][case["source"]]["context"] for case in table["cases"].values())
        planned = content(folder.parents[1] / "preprocessed" / folder.name, "duplus_cases.json")
        assert planned["cases"] == table["cases"]
        return " ".join(result.notes)

    return run


@pytest.mark.parametrize("file", list_recipes().values(), ids=str)
def test_a_recipe_is_complete(file: Path) -> None:
    recipe = read_recipe(file)
    assert recipe.values[0] == 0
    assert set(recipe.values.values()) == set(range(len(recipe.labels) + 1))
    assert any(not group.test for layout in recipe.layouts for group in layout.groups)


def test_btcv_pairs_images_and_labels_of_other_names(download: Path, convert: Convert, check: Check) -> None:
    for number in ("0001", "0021"):
        training = download / "RawData/Training"
        save_pair(training, f"img/img{number}.nii.gz", f"label/label{number}.nii.gz", range(14))
    save(download, "RawData/Test/img/img0061.nii.gz", make_image())
    folder = convert("btcv")
    assert folder.name == "Dataset300_BTCV"
    assert sorted(file.name.removesuffix(".nii.gz") for file in folder.glob("*/*")) == [
        "BTCV_0001", "BTCV_0001_0000", "BTCV_0021", "BTCV_0021_0000", "BTCV_0061_0000",
    ]  # fmt: skip
    assert (folder / "imagesTr/BTCV_0001_0000.nii.gz").resolve().is_relative_to(download)
    assert content(folder, "dataset.json")["labels"]["left adrenal gland"] == 13
    check(folder)


def test_lits_keeps_plain_files_and_corrects_a_lost_geometry(download: Path, convert: Convert, check: Check) -> None:
    save_pair(download, "Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii", (0, 1, 2))
    save_pair(download, "Training Batch 2/volume-31.nii", "Training Batch 2/segmentation-31.nii", (0, 1), np.eye(4))
    save_pair(download, "Training Batch 2/volume-39.nii", "Training Batch 2/segmentation-39.nii", (0, 1), np.eye(4))
    folder = convert("lits")
    assert read(folder, "imagesTr/LiTS_0_0000.nii.gz").header.get_zooms() == (2, 2, 2)
    assert read(folder, "imagesTr/LiTS_31_0000.nii.gz").header.get_zooms() == (1, 1, 2.5)
    assert read(folder, "labelsTr/LiTS_31.nii.gz").header.get_zooms() == (1, 1, 2.5)
    assert set(content(folder, "conversion.json")["notes"]) == {"LiTS_31", "LiTS_39"}
    check(folder)


def test_lits_of_the_decathlon_is_the_same_dataset(download: Path, convert: Convert) -> None:
    save_pair(download, "Task03_Liver/imagesTr/liver_7.nii.gz", "Task03_Liver/labelsTr/liver_7.nii.gz", (0, 1, 2))
    assert (convert("lits") / "imagesTr/LiTS_7_0000.nii.gz").is_file()


@pytest.mark.parametrize(
    ("recipe", "image", "label", "labels"),
    [
        ("kits19", "data/case_00015/imaging.nii.gz", "data/case_00015/segmentation.nii.gz", 2),
        ("kits21", "kits21/data/case_00015/imaging.nii.gz", "kits21/data/case_00015/aggregated_MAJ_seg.nii.gz", 3),
        ("kits23", "dataset/case_00015/imaging.nii.gz", "dataset/case_00015/segmentation.nii.gz", 3),
    ],
)
def test_kits_is_read_with_its_axes_in_order(
    download: Path, convert: Convert, check: Check, recipe: str, image: str, label: str, labels: int
) -> None:
    save_pair(download, image, label, range(labels + 1))
    folder = convert(recipe)
    assert content(folder, "dataset.json")["overwrite_image_reader_writer"] == "NibabelIOWithReorient"
    assert values(folder, "labelsTr/case_00015.nii.gz") == list(range(labels + 1))
    check(folder)


def test_kits23_declares_regions(download: Path, convert: Convert) -> None:
    save_pair(download, "case_00015/imaging.nii.gz", "case_00015/segmentation.nii.gz", (0, 1, 2))
    folder = convert("kits23")
    assert content(folder, "dataset.json")["labels"] == {
        "background": 0,
        "kidney": [1, 2, 3],
        "masses": [2, 3],
        "tumor": [2],
    }
    assert content(folder, "dataset.json")["regions_class_order"] == [1, 3, 2]


def test_amos_has_a_context_by_number(download: Path, convert: Convert, check: Check) -> None:
    save_pair(download, "amos22/imagesTr/amos_0001.nii.gz", "amos22/labelsTr/amos_0001.nii.gz", range(16))
    save_pair(download, "amos22/imagesVa/amos_0507.nii.gz", "amos22/labelsVa/amos_0507.nii.gz", range(14))
    save(download, "amos22/imagesVa/amos_0507.nii.gz", make_image() + 1000)
    folder = convert("amos22")
    assert "amos_ct 1, amos_mr 1" in check(folder)


def test_chaos_reads_series_and_masks_in_the_order_of_their_position(
    download: Path, convert: Convert, check: Check
) -> None:
    masks = [make_labels((63, 126, 189, 252), (6, 8)) if index == 0 else np.zeros((6, 8)) for index in range(3)]
    for phase, reverse in (("InPhase", True), ("OutPhase", False)):
        save_series(download / "Train_Sets/MR/1/T1DUAL/DICOM_anon" / phase, 3, reverse=reverse)
    save_series(download / "Train_Sets/MR/1/T2SPIR/DICOM_anon", 3)
    save_masks(download / "Train_Sets/MR/1/T1DUAL/Ground", masks)
    save_masks(download / "Train_Sets/MR/1/T2SPIR/Ground", masks)
    save_series(download / "Train_Sets/MR/2/T2SPIR/DICOM_anon", 3)
    save_masks(download / "Train_Sets/MR/2/T2SPIR/Ground", masks)
    folder = convert("chaos", "--available")
    image = read(folder, "imagesTr/T1_in_1_0000.nii.gz")
    assert [int(np.median(image.dataobj[..., z])) for z in range(3)] == [100, 200, 300]
    assert image.dataobj[5, 1, 0] == 7
    assert np.allclose(image.affine, [[-1.5, 0, 0, 20], [0, -1.5, 0, 30], [0, 0, 4, 10], [0, 0, 0, 1]])
    # The first file is the slice at the head in one series, and at the feet in the other.
    for case, height in (("T1_in_1", 2), ("T1_out_1", 0), ("T2_1", 0)):
        labels = np.asarray(read(folder, f"labelsTr/{case}.nii.gz").dataobj)
        assert sorted(set(np.argwhere(labels)[:, 2].tolist())) == [height]
        assert set(np.unique(labels).tolist()) == {0, 1, 2, 3, 4}
    assert "chaos_t1_in 1, chaos_t1_out 1, chaos_t2 2" in check(folder)
    for fold in content(folder, "splits_final.json"):
        assert {name[-1] for name in fold["train"]}.isdisjoint(name[-1] for name in fold["val"])


def test_the_frames_of_mnms_become_cases(download: Path, convert: Convert, check: Check) -> None:
    skewed = AFFINE.copy()
    skewed[0, 1] = 0.02
    frames = np.stack([make_image(seed) for seed in range(4)], axis=-1)
    labels = np.stack([make_labels(range(4)) * (index in (1, 3)) for index in range(4)], axis=-1)
    for patient in ("A0S9V9", "B1"):
        save(download, f"OpenDataset/Training/Labeled/{patient}/{patient}_sa.nii.gz", frames, skewed)
        save(download, f"OpenDataset/Training/Labeled/{patient}/{patient}_sa_gt.nii.gz", labels, skewed)
    rows = [{"External code": patient, "Vendor": "A", "ED": 1, "ES": 3} for patient in ("A0S9V9", "B1")]
    write_csv(download / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv", rows)
    folder = convert("mnms")
    assert np.array_equal(read(folder, "imagesTr/A0S9V9_ES_0000.nii.gz").dataobj, frames[..., 3])
    axes = read(folder, "imagesTr/A0S9V9_ED_0000.nii.gz").affine[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    assert values(folder, "labelsTr/B1_ED.nii.gz") == [0, 1, 2, 3]
    for fold in content(folder, "splits_final.json"):
        assert {name[:2] for name in fold["train"]}.isdisjoint(name[:2] for name in fold["val"])
    check(folder)


def make_thorax(first: int, second: int, air: int, tissue: int) -> tuple[Any, Any]:
    """A thorax whose left half is `first`, with a trachea of air."""
    image, labels = np.zeros((20, 20, 4), np.int16), np.zeros((20, 20, 4), np.uint8)
    labels[12:18, 4:8], labels[2:8, 4:8] = first, second  # AFFINE runs to the left: high indices are left
    labels[9:11, 4:6], labels[9:11, 8:10] = air, tissue
    image[9:11, 4:6] = -1000
    labels[9:11, 12:14], labels[9:11, 16:18] = 3, 6
    return image, labels


@pytest.mark.parametrize(("first", "second", "air", "tissue"), [(1, 2, 5, 4), (2, 1, 4, 5)])
def test_geometry_decides_on_the_values_of_structseg(
    download: Path, convert: Convert, check: Check, first: int, second: int, air: int, tissue: int
) -> None:
    image, labels = make_thorax(first, second, air, tissue)
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])
    save(download, "Thoracic_OAR/1/data.nii.gz", image, affine)
    save(download, "Thoracic_OAR/1/label.nii.gz", labels, affine)
    folder = convert("structseg_thorax")
    found = np.asarray(read(folder, "labelsTr/thorax_1.nii.gz").dataobj)
    names = content(folder, "dataset.json")["labels"]
    assert (found[15, 5, 0], found[4, 5, 0]) == (names["left lung"], names["right lung"])
    assert (found[10, 5, 0], found[10, 9, 0]) == (names["trachea"], names["esophagus"])
    assert ("thorax_1" in content(folder, "conversion.json")["notes"]) == (first == 2)
    check(folder)


def test_a_single_lung_is_refused_since_it_may_be_either(
    download: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    image, labels = make_thorax(1, 0, 5, 4)
    save(download, "Thoracic_OAR/1/data.nii.gz", image)
    save(download, "Thoracic_OAR/1/label.nii.gz", labels)
    convert("structseg_thorax", expected=1)
    assert "'left lung' alone" in capsys.readouterr().err


def test_sides_of_the_head_are_refused_and_not_exchanged_for_one_pair(
    download: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((40, 4, 4), np.uint8)
    labels[30:34], labels[4:8] = 13, 12
    save(download, "HaN_OAR/7/data.nii.gz", make_image(0, labels.shape))
    save(download, "HaN_OAR/7/label.nii.gz", labels)
    convert("structseg_head", expected=1)
    assert "'left parotid gland' lies to the right" in capsys.readouterr().err


def test_lungs_whose_sides_cannot_be_decided_are_refused(
    download: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pair(download, "Thoracic_OAR/1/data.nii.gz", "Thoracic_OAR/1/label.nii.gz", range(7))
    convert("structseg_thorax", expected=1)
    assert "thorax_1" in capsys.readouterr().err


def test_structseg_of_the_head_is_known_to_the_registry(download: Path, convert: Convert, check: Check) -> None:
    labels = np.zeros((40, 4, 4), np.uint8)
    labels[30:34], labels[4:8] = 12, 13
    save(download, "HaN_OAR/7/data.nii.gz", make_image(0, labels.shape))
    save(download, "HaN_OAR/7/label.nii.gz", labels)
    check(convert("structseg_head"))


def test_soft_masks_of_brain_tissue_are_joined(download: Path, convert: Convert, check: Check) -> None:
    soft = np.zeros((3, *(4, 4, 4)), np.float32)
    soft[0, 0], soft[1, 1], soft[2, 2] = 0.4, 0.9, 0.2
    soft[1, 2] = 0.1
    save(download, "train/image/dlbs_0028401_img.nii", make_image(0, (4, 4, 4)))
    for mask, name in zip(soft, ("graymatter", "whitematter", "csf"), strict=True):
        save(download, f"train/mask/dlbs_0028401_probmask_{name}.nii", mask)
    folder = convert("brain_structure")
    labels = np.asarray(read(folder, "labelsTr/dlbs_0028401.nii.gz").dataobj)
    assert [int(labels[index, 0, 0]) for index in range(4)] == [1, 2, 3, 0]
    check(folder)


def test_autopet_has_two_channels_and_folds_by_patient(download: Path, convert: Convert, check: Check) -> None:
    for patient in ("PETCT_a", "PETCT_b"):
        for study in ("s1", "s2"):
            for name in ("CTres", "SUV", "CT", "PET"):
                save(
                    download,
                    f"{patient}/{study}/{name}.nii.gz",
                    make_image() if "CT" in name else np.ones((10, 10, 10)),
                )
            save(download, f"{patient}/{study}/SEG.nii.gz", make_labels((0, 1)))
    folder = convert("autopet")
    assert (folder / "imagesTr/PETCT_a_s1_0001.nii.gz").resolve().name == "SUV.nii.gz"
    assert content(folder, "dataset.json")["channel_names"] == {"0": "CT", "1": "PET"}
    for fold in content(folder, "splits_final.json"):
        assert {name[:7] for name in fold["train"]}.isdisjoint(name[:7] for name in fold["val"])
    assert "autopet_pet_ct 4" in check(folder)


@pytest.mark.parametrize(
    ("recipe", "image", "label"),
    [
        ("hecktor2022", "imagesTr/CHUM-001__{}.nii.gz", "labelsTr/CHUM-001.nii.gz"),
        ("hecktor2025", "Task 1/CHUM-001/CHUM-001__{}.nii.gz", "Task 1/CHUM-001/CHUM-001.nii.gz"),
        ("hecktor2026", "CHUM-001/CHUM-001__{}.nii.gz", "CHUM-001/CHUM-001.nii.gz"),
    ],
)
def test_pet_and_ct_of_hecktor_are_put_on_one_grid(
    download: Path, convert: Convert, check: Check, recipe: str, image: str, label: str
) -> None:
    coarse = np.diag([-4.0, -4.0, 4.0, 1.0])
    coarse[:3, 3] = (-1, -1, 1)
    pet = np.broadcast_to(np.arange(5, dtype=np.float32)[:, None, None], (5, 5, 5))
    training = download / f"{recipe}_training"
    save(training, image.format("CT"), make_image())
    save(training, image.format("PT"), pet.copy(), coarse)
    save(training, label, make_labels((0, 1, 2)))
    folder = convert(recipe)
    resampled = read(folder, "imagesTr/CHUM-001_0001.nii.gz")
    assert np.allclose(resampled.affine, AFFINE)
    assert np.allclose(np.asarray(resampled.dataobj)[1:9, 5, 5], np.arange(1, 9) / 2 - 0.25)
    assert values(folder, "labelsTr/CHUM-001.nii.gz") == [0, 1, 2]
    assert "hecktor_pet_ct 1" in check(folder)


def test_a_pet_that_is_not_suv_is_refused(download: Path, convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    save(download, "CHUM-001/CHUM-001__CT.nii.gz", make_image())
    save(download, "CHUM-001/CHUM-001__PT.nii.gz", np.full((10, 10, 10), 20000, np.float32))
    save(download, "CHUM-001/CHUM-001.nii.gz", make_labels((0, 1, 2)))
    convert("hecktor2026", expected=1)
    assert "SUV" in capsys.readouterr().err


@pytest.mark.parametrize(("recipe", "image"), [("totalsegmentator_ct", "ct"), ("totalsegmentator_mr", "mri")])
def test_the_masks_of_totalsegmentator_are_joined(
    download: Path, convert: Convert, check: Check, recipe: str, image: str
) -> None:
    root = download / "Totalsegmentator_dataset_v201"
    save(root, f"s0007/{image}.nii.gz", make_image())
    names = list(read_recipe(list_recipes()[recipe]).labels)
    for number, name in enumerate(names):
        mask = np.zeros(1000, np.uint8)
        mask[number] = 1
        save(root, f"s0007/segmentations/{name}.nii.gz", mask.reshape(10, 10, 10))
    folder = convert(recipe)
    labels = np.asarray(read(folder, "labelsTr/s0007.nii.gz").dataobj).ravel()
    assert labels[: len(names) + 1].tolist() == [*range(1, len(names) + 1), 0]
    check(folder)


@pytest.mark.parametrize("delimiter", [";", ","])
def test_the_published_parts_of_totalsegmentator_are_taken(
    download: Path, convert: Convert, check: Check, delimiter: str
) -> None:
    names = list(read_recipe(list_recipes()["totalsegmentator_ct"]).labels)
    parts = {"s0001": "train", "s0002": "val", "s0003": "test", "s0004": "train"}
    for subject in parts:
        save(download, f"{subject}/ct.nii.gz", make_image())
        for number, name in enumerate(names):
            mask = np.zeros(1000, np.uint8)
            mask[number] = 1
            save(download, f"{subject}/segmentations/{name}.nii.gz", mask.reshape(10, 10, 10))
    rows = [("image_id", "age", "split"), *((subject, "50", part) for subject, part in parts.items())]
    (download / "meta.csv").write_text("\n".join(map(delimiter.join, rows)))
    folder = convert("totalsegmentator_ct")
    assert content(folder, "splits_final.json") == [{"train": ["s0001", "s0004"], "val": ["s0002"]}]
    assert [file.name for file in (folder / "labelsTs").iterdir()] == ["s0003.nii.gz"]
    assert content(folder, "duplus_cases.json")["tests"]["s0003"]["present"]
    check(folder)


def test_cases_of_kits19_without_annotation_are_test_cases(download: Path, convert: Convert) -> None:
    save_pair(download, "data/case_00000/imaging.nii.gz", "data/case_00000/segmentation.nii.gz", (0, 1, 2))
    save(download, "data/case_00210/imaging.nii.gz", make_image())
    folder = convert("kits19")
    assert [file.name for file in (folder / "imagesTs").iterdir()] == ["case_00210_0000.nii.gz"]
    assert not (folder / "labelsTs").exists()


def test_a_faulty_case_of_kits19_is_noted(download: Path, convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    save_pair(download, "case_00015/imaging.nii.gz", "case_00015/segmentation.nii.gz", (0, 1, 2))
    folder = convert("kits19")
    assert "case_00015" in capsys.readouterr().out
    assert "case_00015" in content(folder, "conversion.json")["notes"]


HECKTOR_2022 = (
    "PatientID", "Task 1", "Task 2", "CenterID", "Gender", "Age", "Weight", "Tobacco", "Alcohol", "Performance status",
    '"HPV status (0=-, 1=+)"', "Surgery", "Chemotherapy",
)  # fmt: skip
HECKTOR_2025 = (
    "PatientID", "CenterID", "Age", "Gender", "Tobacco Consumption", "Alcohol Consumption", "Performance Status",
    "Treatment", "M-stage", "Relapse", "RFS",
)  # fmt: skip
HECKTOR_2026 = (
    "PatientID", "CenterID", "Age", "Gender", "Tobacco Consumption", "Alcohol Consumption", "Performance Status",
    "Treatment", "HPV Status", "Relapse", "RFS", "T-stage", "N-stage",
)  # fmt: skip
OUTCOME = ("PatientID", "Relapse", "RFS")


def write_hecktor(file: Path, columns: tuple[str, ...], patients: int = 40) -> None:
    """Write a table of patients of which the first has no outcome, and every third no performance status."""
    values = {"PatientID": lambda n: f"CHUM-{n:03}", "CenterID": lambda n: 1 + n % 4, "Age": lambda n: 50 + n % 25}
    values |= {"RFS": lambda n: 100 + 37 * n if n else "", "Relapse": lambda n: n % 3 % 2 if n else ""}
    values |= {"Performance status": lambda n: "" if n % 3 == 0 else n % 2, "T-stage": lambda n: f"T{1 + n % 4}"}
    rows = [{column: values.get(column, lambda n: n % 2)(n) for column in columns} for n in range(patients)]
    write_csv(file, rows)


@pytest.mark.parametrize(
    ("recipe", "case", "tables"),
    [
        (
            "hecktor2022",
            ("imagesTr/CHUM-001__{}.nii.gz", "labelsTr/CHUM-001.nii.gz"),
            {"hecktor2022_clinical_info_training.csv": HECKTOR_2022, "hecktor2022_endpoint_training.csv": OUTCOME},
        ),
        (
            "hecktor2025",
            ("Task 1/CHUM-001/CHUM-001__{}.nii.gz", "Task 1/CHUM-001/CHUM-001.nii.gz"),
            {"HECKTOR_2025_Training_Task_2.csv": HECKTOR_2025},
        ),
        (
            "hecktor2026",
            ("CHUM-001/CHUM-001__{}.nii.gz", "CHUM-001/CHUM-001.nii.gz"),
            {"HECKTOR_2026_training_data.csv": HECKTOR_2026},
        ),
    ],
)
def test_the_tables_of_hecktor_can_be_used_as_they_are(
    download: Path,
    convert: Convert,
    capsys: pytest.CaptureFixture[str],
    recipe: str,
    case: tuple[str, str],
    tables: dict[str, tuple[str, ...]],
) -> None:
    save(download, case[0].format("CT"), make_image())
    save(download, case[0].format("PT"), np.ones((10, 10, 10), np.float32))
    save(download, case[1], make_labels((0, 1, 2)))
    for name, columns in tables.items():
        write_hecktor(download / name, columns)
    folder = convert(recipe)
    capsys.readouterr()
    assert main(["survival", "check", str(folder)]) == 0
    assert "39 usable patients" in capsys.readouterr().out
    assert "39 patients" in " ".join(content(folder, "conversion.json")["clinical"])


def test_tables_that_contradict_each_other_are_refused(
    download: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    save(download, "imagesTr/CHUM-001__CT.nii.gz", make_image())
    save(download, "imagesTr/CHUM-001__PT.nii.gz", np.ones((10, 10, 10), np.float32))
    save(download, "labelsTr/CHUM-001.nii.gz", make_labels((0, 1, 2)))
    write_csv(download / "hecktor2022_clinical_info_training.csv", [{"PatientID": "CHUM-001", "RFS": 5}])
    write_csv(download / "hecktor2022_endpoint_training.csv", [{"PatientID": "CHUM-001", "RFS": 6, "Relapse": 1}])
    assert list(convert("hecktor2022", expected=1).glob("Dataset*")) == []
    assert "'RFS' of 'CHUM-001'" in capsys.readouterr().err


DECATHLON = {
    "msd_brain_tumour": ("BRATS", 4, 3, "brain_tumor_mr"),
    "msd_heart": ("la", 1, 1, "heart_mr"),
    "msd_hippocampus": ("hippocampus", 1, 2, "hippocampus_mr"),
    "msd_prostate": ("prostate", 2, 2, "prostate_mr"),
    "msd_lung": ("lung", 1, 1, "lung_ct"),
    "msd_pancreas": ("pancreas", 1, 2, "pancreas_ct"),
    "msd_hepatic_vessel": ("hepaticvessel", 1, 2, "hepatic_vessel_ct"),
    "msd_spleen": ("spleen", 1, 1, "spleen_ct"),
    "msd_colon": ("colon", 1, 1, "colon_ct"),
}


@pytest.mark.parametrize("recipe", DECATHLON)
def test_a_task_of_the_decathlon_has_its_channels_and_prompts(
    download: Path, convert: Convert, check: Check, recipe: str
) -> None:
    prefix, channels, labels, context = DECATHLON[recipe]
    frames = np.stack([make_image(seed) + (0 if channels == 1 else 1500) for seed in range(channels)], axis=-1)
    image = frames[..., 0] if channels == 1 else frames
    root = download / "Task"
    save(root, f"imagesTr/{prefix}_003.nii.gz", image)
    save(root, f"labelsTr/{prefix}_003.nii.gz", make_labels(range(labels + 1)))
    save(root, f"imagesTs/{prefix}_007.nii.gz", image)
    (root / f"imagesTr/._{prefix}_003.nii.gz").write_bytes(b"written by another operating system")
    folder = convert(recipe)
    for part, case in (("Tr", "003"), ("Ts", "007")):
        for channel in range(channels):
            written = read(folder, f"images{part}/{prefix}_{case}_{channel:04}.nii.gz")
            assert np.array_equal(written.dataobj, frames[..., channel])
            assert np.allclose(written.affine, AFFINE)
    assert values(folder, f"labelsTr/{prefix}_003.nii.gz") == list(range(labels + 1))
    assert f"{context} 1" in check(folder)
    # What needs no change is a link.
    assert (folder / f"imagesTr/{prefix}_003_0000.nii.gz").is_symlink() == (channels == 1)


def test_channels_that_are_not_all_there_are_refused(
    download: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    save(download, "imagesTr/BRATS_001.nii.gz", np.stack([make_image()] * 3, axis=-1))
    save(download, "labelsTr/BRATS_001.nii.gz", make_labels(range(4)))
    convert("msd_brain_tumour", expected=1)
    assert "10x10x10x3" in capsys.readouterr().err


def build_autopet3(download: Path) -> list[str]:
    cases = [f"{tracer}_{patient}_{study}" for tracer in ("fdg", "psma") for patient in "ab" for study in ("1", "2 x")]
    for case in cases:
        save(download, f"imagesTr/{case}_0000.nii.gz", make_image())
        save(download, f"imagesTr/{case}_0001.nii.gz", np.ones((10, 10, 10), np.float32))
        save(download, f"labelsTr/{case}.nii.gz", make_labels((0, 1)))
    return cases


def test_published_folds_are_taken(download: Path, convert: Convert, check: Check) -> None:
    cases = build_autopet3(download)
    folds = [
        {"train": [case for case in cases if patient not in case], "val": [case for case in cases if patient in case]}
        for patient in ("fdg_a", "fdg_b", "psma_a", "psma_b")
    ]
    (download / "splits_final.json").write_text(json.dumps(folds))
    folder = convert("autopet3")
    assert content(folder, "splits_final.json") == folds
    assert "as published" in content(folder, "conversion.json")["folds"]
    assert "autopet_pet_ct 8" in check(folder)


@pytest.mark.parametrize("part", ["a patient on both sides", "a case that is not there", "no file"])
def test_folds_that_do_not_fit_are_replaced_and_it_is_said(download: Path, convert: Convert, part: str) -> None:
    cases = build_autopet3(download)
    if part != "no file":
        extra = [] if part == "a patient on both sides" else ["fdg_c_1"]
        (download / "splits_final.json").write_text(json.dumps([{"train": cases[1:] + extra, "val": cases[:1]}]))
    folder = convert("autopet3")
    for fold in content(folder, "splits_final.json"):
        patients = [{name.rpartition("_")[0] for name in fold[side]} for side in ("train", "val")]
        assert patients[0].isdisjoint(patients[1])
    assert "4 folds by patient were made" in content(folder, "conversion.json")["folds"]


@pytest.mark.parametrize("name", list_recipes())
def test_the_registry_has_the_targets_and_contexts_of_each_recipe(name: str) -> None:
    recipe = read_recipe(list_recipes()[name])
    labels = {"background": 0, **{label: value for value, label in enumerate(recipe.regions or recipe.labels, start=1)}}
    channels = {str(number): channel for number, channel in enumerate(recipe.channels)}
    search = search_entry(f"Dataset300_{recipe.dataset}", {"labels": labels, "channel_names": channels})
    assert not search.entry.origin.startswith(DRAFTED)
    assert {target.label for target in search.entry.targets} == set(labels) - {"background"}
    given = {group.context for layout in recipe.layouts for group in layout.groups} - {None}
    assert given <= set(search.entry.contexts)
    for group in (group for layout in recipe.layouts for group in layout.groups if "{" in group.case):
        numbers = [1, 600] if name == "amos22" else [7]
        cases = [group.case.replace("{id}", str(number)).replace("{id:d}", str(number)) for number in numbers]
        assert set(find_case_contexts(search.entry, cases, recipe.channels).values()) <= set(search.entry.contexts)


@pytest.mark.parametrize("dataset", ["HECKTOR2026", "AutoPETIII", "AutoPETIV", "AutoPETV"])
def test_later_challenges_are_in_the_registry(dataset: str) -> None:
    described = {"labels": {"background": 0, "tumor": 1}, "channel_names": {"0": "CT", "1": "PET"}}
    assert not search_entry(f"Dataset300_{dataset}", described).entry.origin.startswith(DRAFTED)
