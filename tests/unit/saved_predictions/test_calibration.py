"""Calibration of predictions that lie in a folder, compared with scikit-learn on all voxels."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from duplus_nnunet import cli
from duplus_nnunet.model_report.blocks import Table
from duplus_nnunet.model_report.calibration import make_calibration
from duplus_nnunet.outputs.answer import CaseAnswer, Geometry, TargetAnswer
from duplus_nnunet.outputs.probabilities import write_probabilities
from duplus_nnunet.outputs.statistics import StatisticsTable
from duplus_nnunet.reporting.calibration import ALL_TARGETS, NEIGHBOURHOOD_MM, find_neighbourhood
from duplus_nnunet.reporting.calibration_files import read_calibration_report, to_plain

SHAPE = (9, 8, 7)
SPACING = (12.0, 8.0, 6.0)  # (z, y, x)
LABELS = {"background": 0, "liver": 1, "tumor": 2, "ignore": 3}
BOX = (slice(1, 8), slice(0, 8), slice(2, 7))


def make_logits(seed: int) -> Any:
    return np.random.default_rng(seed).normal(-4, 2.5, (7, 8, 5)).astype(np.float16)


def make_truth(seed: int) -> Any:
    truth = np.zeros(SHAPE, np.uint8)
    truth[BOX] = np.random.default_rng(seed).random((7, 8, 5)) < expit(make_logits(seed).astype(float)) ** 2
    truth[0] = 3
    return truth


def save(file: Path, array: Any) -> dict[str, Any]:
    """Save an array with axes (z, y, x), and return the properties that nnU-Net's reader gives."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([*SPACING[::-1], 1.0])), file)
    properties: dict[str, Any] = SimpleITKIO().read_seg(str(file))[1]
    return properties


def predict(home: Path, case: str, seed: int) -> None:
    """Write label map, probability map and statistics of a case whose only predicted target is the liver."""
    properties = save(home / "r" / f"{case}.nii.gz", make_truth(seed))
    logits = make_logits(seed)
    mask = logits > 0
    labels = np.zeros(SHAPE, np.uint8)
    labels[BOX] = mask
    save(home / "p" / f"{case}.nii.gz", labels)
    target = TargetAnswer("liver", 1, "A computed tomography of liver", BOX, mask, logits, presence=0.25 * seed)
    geometry = Geometry(SHAPE, SPACING, properties)
    answer = CaseAnswer(case, "ct", "A computed tomography", geometry, labels, (target,))
    write_probabilities(answer, home / "p")
    table = StatisticsTable.read(home / "p")
    table.add(answer, np.zeros((1, *SHAPE), np.float32))
    table.write(home / "p")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable, raising=False)
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 2, "file_ending": ".nii.gz"}
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "dataset.json").write_text(json.dumps(content))
    for seed, case in enumerate("abc", start=1):
        predict(tmp_path, case, seed)
    return tmp_path


def evaluate(home: Path, *options: str) -> int:
    return cli.main(["evaluate", "-p", str(home / "p"), "-r", str(home / "r"), "-np", "1", "--calibration", *options])


def list_voxels(near: bool) -> tuple[Any, Any]:
    probabilities, truths = [], []
    for seed in (1, 2, 3):
        found = np.zeros(SHAPE)
        found[BOX] = expit(make_logits(seed).astype(np.float32)).astype(np.float16)
        truth = make_truth(seed)
        chosen = truth != 3
        if near:
            chosen &= find_neighbourhood((truth == 1) | (found > 0.5), SPACING)
        probabilities.append(found[chosen])
        truths.append(truth[chosen] == 1)
    return np.concatenate(probabilities), np.concatenate(truths)


@pytest.mark.parametrize("near", [True, False])
def test_calibration_of_a_folder_equals_scikit_learn(near: bool, home: Path) -> None:
    assert evaluate(home) == 0
    report = read_calibration_report(home / "p" / "calibration.json")
    [row] = [row for row in report.rows if row.target == "liver"]
    found = row.near if near else row.all
    assert found is not None
    probabilities, truth = list_voxels(near)
    shares, means = calibration_curve(truth, probabilities, n_bins=10)
    filled = [each for each in found.equal_width.bins if each.count]
    assert [each.mean_probability for each in filled] == pytest.approx(means.tolist(), abs=1e-6)
    assert [each.observed_share for each in filled] == pytest.approx(shares.tolist(), abs=1e-6)
    assert found.brier.value == pytest.approx(brier_score_loss(truth, probabilities), abs=1e-6)
    assert (found.voxels, found.cases) == (len(truth), 3)
    assert near == (found.voxels < 3 * np.prod(SHAPE) - 3 * SHAPE[1] * SHAPE[2])


def test_presence_is_compared_with_the_references(home: Path) -> None:
    assert evaluate(home) == 0
    [row] = [row for row in read_calibration_report(home / "p" / "calibration.json").rows if row.target == "liver"]
    assert row.presence is not None
    assert (row.presence.cases, row.presence.present) == (3, 3)
    assert row.presence.brier.value == pytest.approx((0.75**2 + 0.5**2 + 0.25**2) / 3)
    assert row.presence.sensitivity.value == pytest.approx(1 / 3)


def test_a_calibration_is_read_back_as_it_was_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--json", "-o", str(home / "scores")) == 0
    printed = json.loads(capsys.readouterr().out)["calibration"]
    assert to_plain(read_calibration_report(home / "scores" / "calibration.json")) == printed
    lines = (home / "scores" / "calibration.csv").read_text().splitlines()
    assert [line.split(",")[1:3] for line in lines[1:]] == [["liver", "near the target"], ["liver", "all"]]
    assert ALL_TARGETS not in json.dumps(printed)


def test_a_report_shows_what_was_written(home: Path) -> None:
    assert evaluate(home) == 0
    [row] = read_calibration_report(home / "p" / "calibration.json").rows
    assert row.near is not None
    assert row.presence is not None
    tables = {
        block.name: block
        for block in make_calibration(home / "p" / "calibration.json").blocks
        if isinstance(block, Table)
    }
    [near, _] = tables["calibration"].rows
    assert near[1:5] == ("liver", "near", 3, row.near.voxels)
    assert float(str(near[5]).split()[0]) == pytest.approx(row.near.equal_width.ece.value, abs=5e-4)
    [presence] = tables["presence"].rows
    assert presence[1:4] == ("liver", 3, 3)
    assert presence[6:] == (None, None)  # every image has a liver: neither specificity nor AUC


def test_neighbourhood_reaches_10_mm_along_each_axis() -> None:
    mask = np.zeros((9, 25, 41), bool)
    mask[4, 12, 20] = True
    found = find_neighbourhood(mask, (4.0, 1.0, 0.6))
    assert NEIGHBOURHOOD_MM == 10
    assert [int(found.any(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1))] == [5, 21, 33]
    assert int(find_neighbourhood(mask, (30.0, 1.0, 0.6)).any(axis=(1, 2)).sum()) == 3


def test_predictions_without_probabilities_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for case in "abc":
        (home / "p" / case / "liver.b2nd").unlink()
    (home / "p" / "statistics.json").unlink()
    assert evaluate(home) == 1
    assert "--probabilities" in capsys.readouterr().err
    assert not (home / "p" / "scores.json").exists()


def test_cases_without_probabilities_are_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "p" / "b" / "liver.b2nd").unlink()
    assert evaluate(home) == 0
    assert "1 of 3 cases have no probability maps (--probabilities): b." in capsys.readouterr().err


def test_map_of_another_grid_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "rp":
        file = home / name / "b.nii.gz"
        image = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([1.0, 2.0, 5.0, 1.0])), file)
    assert evaluate(home) == 1
    assert "liver.b2nd" in capsys.readouterr().err


def test_worst_cases_come_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(home, "--worst", "2", "--metrics", "hd95_mm", "dice") == 0
    cases = json.loads((home / "p" / "scores.json").read_text())["cases"]
    expected = sorted("abc", key=lambda case: -cases[case]["targets"]["liver"]["hd95_mm"])[:2]
    out = capsys.readouterr().out
    shown = out[out.index("worst cases") :].splitlines()[1:3]
    assert [line.removeprefix("r, liver").split()[0] for line in shown] == expected
    assert evaluate(home, "--worst", "0") == 1
