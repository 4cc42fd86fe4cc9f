"""The paper's datasets are converted from small downloads, and composed by the shipped specification."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duplus_nnunet.cli import main

from .trees import make_image, make_labels, save, save_masks, save_pair, save_series, write_csv

WIDE = (40, 5, 5)
CASES = range(1, 6)


def build_pairs(image: str, label: str, count: int) -> Callable[[Path], None]:
    """Give what writes five cases whose label maps have the values up to a number."""

    def build(root: Path) -> None:
        for case in CASES:
            save_pair(root, image.format(case), label.format(case), range(count + 1))

    return build


def build_amos(root: Path) -> None:
    for number in (*CASES, *range(501, 506)):
        save(root, f"imagesTr/amos_{number:04}.nii.gz", make_image(number))
        values = range(16) if number <= 500 else range(14)
        save(root, f"labelsTr/amos_{number:04}.nii.gz", make_labels(values))


def build_thorax(root: Path) -> None:
    image, labels = np.zeros((20, 20, 4), np.int16), np.zeros((20, 20, 4), np.uint8)
    labels[12:18, 4:8], labels[2:8, 4:8], labels[9:11, 4:6], labels[9:11, 8:10] = 1, 2, 5, 4
    labels[9:11, 12:14], labels[9:11, 16:18], image[9:11, 4:6] = 3, 6, -1000
    for case in CASES:
        save(root, f"Thoracic_OAR/{case}/data.nii.gz", image, np.diag([-5.0, -5.0, 5.0, 1.0]))
        save(root, f"Thoracic_OAR/{case}/label.nii.gz", labels, np.diag([-5.0, -5.0, 5.0, 1.0]))


def build_head(root: Path) -> None:
    labels = np.zeros(WIDE, np.uint8)
    labels[18:22].ravel()[:22] = range(1, 23)
    labels[30:34], labels[4:8] = 12, 13
    for case in CASES:
        save(root, f"HaN_OAR/{case}/data.nii.gz", make_image(case, WIDE))
        save(root, f"HaN_OAR/{case}/label.nii.gz", labels)


def build_chaos(root: Path) -> None:
    masks = [make_labels((63, 126, 189, 252), (6, 8)), np.zeros((6, 8)), np.zeros((6, 8))]
    for case in CASES:
        folder = root / "Train_Sets/MR" / str(case)
        for series in ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/DICOM_anon/OutPhase", "T2SPIR/DICOM_anon"):
            save_series(folder / series, 3)
        save_masks(folder / "T1DUAL/Ground", masks)
        save_masks(folder / "T2SPIR/Ground", masks)


def build_mnms(root: Path) -> None:
    for case in CASES:
        save(root, f"OpenDataset/Training/Labeled/P{case}/P{case}_sa.nii.gz", np.stack([make_image()] * 2, axis=-1))
        labels = np.stack([make_labels(range(4))] * 2, axis=-1)
        save(root, f"OpenDataset/Training/Labeled/P{case}/P{case}_sa_gt.nii.gz", labels)
    write_csv(root / "list.csv", [{"External code": f"P{case}", "ED": 0, "ES": 1} for case in CASES])


def build_brain(root: Path) -> None:
    for case in CASES:
        save(root, f"train/image/dlbs_{case}_img.nii", make_image())
        for index, name in enumerate(("graymatter", "whitematter", "csf")):
            mask = np.zeros((10, 10, 10), np.float32)
            mask[index] = 0.8
            save(root, f"train/mask/dlbs_{case}_probmask_{name}.nii", mask)


def build_autopet(root: Path) -> None:
    for case in CASES:
        save(root, f"PETCT_{case}/s1/CTres.nii.gz", make_image())
        save(root, f"PETCT_{case}/s1/SUV.nii.gz", np.ones((10, 10, 10), np.float32))
        save(root, f"PETCT_{case}/s1/SEG.nii.gz", make_labels((0, 1)))


BUILDERS: dict[str, Callable[[Path], None]] = {
    "btcv": build_pairs("Training/img/img{:04}.nii.gz", "Training/label/label{:04}.nii.gz", 13),
    "lits": build_pairs("volume-{}.nii", "segmentation-{}.nii", 2),
    "kits19": build_pairs("case_{:05}/imaging.nii.gz", "case_{:05}/segmentation.nii.gz", 2),
    "amos22": build_amos,
    "structseg_thorax": build_thorax,
    "structseg_head": build_head,
    "chaos": build_chaos,
    "mnms": build_mnms,
    "brain_structure": build_brain,
    "autopet": build_autopet,
}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def convert(raw: Path, *recipes: str) -> None:
    for number, recipe in enumerate(recipes, start=700):
        download = raw.parent / "downloads" / recipe
        BUILDERS[recipe](download)
        assert main(["convert", recipe, str(download), "-d", str(number)]) == 0


def compose(*words: str) -> int:
    return main(["compose", "-o", "600", "-n", "Paper", "--spec", "paper", *words])


def read(raw: Path, name: str) -> Any:
    return json.loads((raw / "Dataset600_Paper" / name).read_text())


def test_the_papers_datasets_are_composed_whatever_their_numbers(raw: Path) -> None:
    convert(raw, *BUILDERS)
    assert compose() == 0
    table = read(raw, "duplus_cases.json")
    cases = {name: sum(case["source"] == name for case in table["cases"].values()) for name in table["sources"]}
    assert cases == {
        "BTCV": 5, "LiTS": 5, "KiTS19": 5, "AMOS22-amos_ct": 5, "AMOS22-amos_mr": 5, "StructSeg_Thorax": 5,
        "StructSeg_HaN_OAR": 5, "CHAOS-chaos_t1_in": 5, "CHAOS-chaos_t1_out": 5, "CHAOS-chaos_t2": 5, "MNMs": 10,
        "BrainStructure": 5, "AutoPETII-autopet_pet": 5,
    }  # fmt: skip
    assert table["sources"]["AutoPETII-autopet_pet"]["channels"] == ["PET"]
    assert "bladder" not in table["cases"]["AMOS22-amos_mr_amos_0501"]["annotated"]
    assert "bladder" in table["cases"]["AMOS22-amos_ct_amos_0001"]["annotated"]
    # One name for what several datasets annotate; neighbours that only sound alike stay apart.
    assert sum("liver" in source["targets"] for source in table["sources"].values()) == 7
    assert sum("spinal cord" in source["targets"] for source in table["sources"].values()) == 2
    assert "liver tumor" not in table["sources"]["KiTS19"]["targets"]
    # Patients come from the tables of the sources: three sequences of a patient, two frames of a heart.
    patients = {name: case["patient"] for name, case in table["cases"].items()}
    assert len({patients[f"CHAOS-chaos_{part}_1"] for part in ("t1_in_T1_in", "t1_out_T1_out", "t2_T2")}) == 1
    assert patients["MNMs_P1_ED"] == patients["MNMs_P1_ES"] != patients["MNMs_P2_ES"]
    for fold in read(raw, "splits_final.json"):
        assert {patients[name] for name in fold["train"]}.isdisjoint(patients[name] for name in fold["val"])


def test_sources_that_are_not_there_are_named(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(raw, "lits", "chaos")
    assert compose() == 1
    shown = capsys.readouterr().err
    assert "8 of the 10" in shown
    assert "BTCV" in shown
    assert not (raw / "Dataset600_Paper").exists()
    assert compose("--available") == 0
    assert "AutoPETII" in capsys.readouterr().out
    assert {source["dataset"] for source in read(raw, "duplus_cases.json")["sources"].values()} == {
        "Dataset700_LiTS",
        "Dataset701_CHAOS",
    }


def test_two_datasets_of_one_name_are_not_chosen_from(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(raw, "lits", "btcv")
    assert main(["convert", "lits", str(raw.parent / "downloads/lits"), "-d", "710"]) == 0
    assert compose("--available") == 1
    assert "'Dataset700_LiTS', 'Dataset710_LiTS'" in capsys.readouterr().err


def test_shipped_specifications_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["compose", "--list-specs"])
    assert end.value.code == 0
    assert "paper: BTCV, LiTS" in capsys.readouterr().out


def test_an_unknown_specification_is_named(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compose", "-o", "600", "-n", "Paper", "--spec", "papr"]) == 1
    assert "'paper'" in capsys.readouterr().err
