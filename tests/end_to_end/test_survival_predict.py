"""Prediction of new patients by the command, on a tiny trained model: predictions, warnings and effects of inputs."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from duplus_nnunet.cli import main
from duplus_nnunet.networks.adaptation import take_adapter
from duplus_nnunet.settings import SurvivalSettings
from duplus_nnunet.survival.command.trained_models import write_importance
from duplus_nnunet.survival.models.model import fit_model
from duplus_nnunet.survival.prediction.trained_model import open_reader, read_trained_model
from duplus_nnunet.survival.records.feature_table import FeatureTable
from duplus_nnunet.survival.records.schema import read_schema
from duplus_nnunet.survival.records.table import Record, read_records
from duplus_nnunet.survival.records.table import read_rows as read_table
from duplus_nnunet.survival.training.lora import ADAPTER, attach_lora, make_lora_spec

from .conftest import build_once
from .test_survival_trainer import PATIENTS, Prognosis, train_base

pytestmark = pytest.mark.slow

NEW = f"P{PATIENTS}"  # whose image is in imagesTs


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Prognosis:
    """A segmentation, and a prognosis of two folds on it."""
    made = Prognosis(build_once(tmp_path_factory, "prognosis", train_base))
    plans = made.copy_plans("DuPLUSFrozen", allow_overlap=True)
    for fold in (0, 1):
        done = made.learn(plans, fold, "-pretrained_weights", made.base)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return made


@pytest.fixture(scope="module")
def model(project: Prognosis) -> Path:
    return project.model_of("DuPLUSSurvivalTrainer", "DuPLUSFrozen")


@pytest.fixture(scope="module")
def images(project: Prognosis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of a patient with a record, one of a patient without, and one that is cut off."""
    folder = tmp_path_factory.mktemp("images")
    whole = project.raw / "imagesTs" / f"{NEW}_CT_0000.nii.gz"
    shutil.copy(whole, folder / whole.name)
    shutil.copy(whole, folder / "P20_CT_0000.nii.gz")
    (folder / "P21_CT_0000.nii.gz").write_bytes(whole.read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table without outcomes, of an imaged patient and of one that was not."""
    file = tmp_path_factory.mktemp("table") / "new.csv"
    file.write_text(f"patient,age,grade\n{NEW},61,high\nP99,,medium\n")
    return file


def predict(model: Path, out: Path, *options: str | Path) -> int:
    return main(["survival", "predict", "-m", str(model), "-o", str(out), "--device", "cpu", *map(str, options)])


def read_rows(file: Path) -> dict[str, dict[str, str]]:
    with file.open() as stream:
        return {row["patient"]: row for row in csv.DictReader(stream)}


def copy_model(model: Path, folder: Path, /, **changes: Any) -> Path:
    """Copy fold 0 of a model with parts of its prognosis changed."""
    made = Path(shutil.copytree(model, folder, ignore=shutil.ignore_patterns("fold_1", "validation")))
    file = made / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=True)
    content["duplus_survival"] |= changes
    del content["duplus_checksums"]
    torch.save(content, file)
    return made


def test_images_of_training_give_the_numbers_of_training(project: Prognosis, model: Path, tmp_path: Path) -> None:
    known = read_rows(model / "fold_0" / "validation" / "predictions.csv")
    horizons = json.loads((model / "fold_0/validation/survival.json").read_text())["horizons_days"]
    images = tmp_path / "images"
    images.mkdir()
    for patient in list(known)[:3]:
        shutil.copy(project.raw / "imagesTr" / f"{patient}_CT_0000.nii.gz", images)
    words = ("-i", images, "--clinical", project.raw / "clinical.csv", "--fold", "0", "--horizons", *horizons)
    assert predict(model, tmp_path / "out", *words) == 0
    found = read_rows(tmp_path / "out" / "predictions.csv")
    assert len(found) == PATIENTS + 1  # all of the table; those that were not given an image, by their record
    columns = [name for name in next(iter(found.values())) if name.startswith("survival at")]
    assert len(columns) == len(horizons)
    (fold,) = read_trained_model(model, ("0",)).folds
    for patient in list(known)[:3]:
        assert found[patient]["images used"] == f"{patient}_CT"
        for name in columns:
            assert float(found[patient][name]) == pytest.approx(float(known[patient][name]), abs=2e-4)
        risk = (float(known[patient]["risk"]) - fold.model.risks.mean()) / fold.model.risks.std()
        assert float(found[patient]["risk"]) == pytest.approx(risk, abs=2e-3)
        assert "trained on in" not in found[patient]["warnings"]
    trained = next(iter(fold.patients))
    assert "trained on in 1 of 1 folds" in found[trained]["warnings"]


def test_whatever_is_known_of_a_patient_is_used_and_a_bad_image_ends_nothing(
    model: Path, images: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(model, tmp_path, "-i", images, "--clinical", table, "--horizons", "300", "600") == 1
    assert "failed: P21_CT" in capsys.readouterr().err
    rows = read_rows(tmp_path / "predictions.csv")
    assert set(rows) == {NEW, "P20", "P99"}
    assert (rows[NEW]["images used"], rows["P20"]["images used"], rows["P99"]["images used"]) == (
        f"{NEW}_CT", "P20_CT", "",
    )  # fmt: skip
    assert [rows[name]["record values missing"] for name in (NEW, "P20", "P99")] == ["0", "2", "2"]
    assert "no record" in rows["P20"]["warnings"]
    assert "no image" in rows["P99"]["warnings"]
    assert "'grade' is 'medium'" in rows["P99"]["warnings"]
    assert len({row["risk"] for row in rows.values()}) == 3
    about = json.loads((tmp_path / "survival_prediction.json").read_text())
    assert [fold["fold"] for fold in about["folds"]] == ["0", "1"]
    assert "cut off" in about["failed_images"]["P21_CT"] or "cannot be read" in about["failed_images"]["P21_CT"]
    assert about["meanings"]["risk"].startswith("higher is worse")
    with (tmp_path / "survival_curves.csv").open() as file:
        curves = list(csv.reader(file))
    values = np.array([row[1:] for row in curves[1:]], float)
    assert (np.diff(values, axis=1) <= 1e-6).all()
    assert values[:, 0] == pytest.approx(1)


def test_records_alone_need_no_images(model: Path, table: Path, tmp_path: Path) -> None:
    assert predict(model, tmp_path, "--clinical", table) == 0
    rows = read_rows(tmp_path / "predictions.csv")
    assert set(rows) == {NEW, "P99"}
    assert all("no image" in row["warnings"] for row in rows.values())
    assert not (tmp_path / "explanation.csv").exists()


def test_the_map_lies_on_the_image_and_shows_the_lesion(
    project: Prognosis, model: Path, table: Path, tmp_path: Path
) -> None:
    features = FeatureTable.from_npz(model / "fold_0" / "survival_table.npz")
    volumes = features.choose(["lesions_ct: lesion volume"])
    order = sorted(features.rows, key=lambda name: -float(volumes.rows[name][0]))
    assert volumes.rows[order[0]][0] > volumes.rows[order[-1]][0]
    records = [
        Record(row, name, "", 30.0 + 20 * row, "seen", 0.0, {"age": 60.0, "grade": 0.0})
        for row, name in enumerate(order)
    ]  # the larger the lesion, the sooner the event
    schema = read_schema(project.raw / "clinical.yaml")
    settings = SurvivalSettings(networks=2, modality_dropout=0.0, table_dropout=0.0)
    fitted = fit_model(records, schema, features, settings, 0)
    changed = copy_model(model, tmp_path / "model", model=fitted.to_plain())
    words = ("-i", project.raw / "imagesTs", "--clinical", table, "--explain", "--box", "12", "--horizons", "100")
    assert predict(changed, tmp_path / "out", *words) == 0
    made: Any = nibabel.load(tmp_path / "out" / "occlusion" / f"{NEW}_CT.nii.gz")
    image: Any = nibabel.load(project.raw / "imagesTs" / f"{NEW}_CT_0000.nii.gz")
    label: Any = nibabel.load(project.raw / "labelsTs" / f"{NEW}_CT.nii.gz")
    assert made.shape == image.shape
    np.testing.assert_allclose(made.affine, image.affine)
    values, lesion = made.get_fdata(), label.get_fdata() > 0
    looked = np.isfinite(values)
    assert not looked.all()
    inside, outside = np.abs(values[lesion & looked]).mean(), np.abs(values[~lesion & looked]).mean()
    assert inside > 1.5 * outside
    assert values[lesion & looked].mean() > 0  # less of the lesion, less risk
    with (tmp_path / "out" / "explanation.csv").open() as file:
        effects = {(row["patient"], row["input"]): row for row in csv.DictReader(file)}
    assert float(effects[NEW, "lesions_ct"]["effect on risk"]) != 0
    assert effects[NEW, "age"]["value"] == "61"
    assert effects[NEW, "grade"]["value"] == "high"
    about = json.loads((tmp_path / "out" / "survival_prediction.json").read_text())
    assert about["occlusion_maps"][f"{NEW}_CT"]["boxes"] > 8


def test_a_lora_that_was_kept_is_used(model: Path, images: Path, tmp_path: Path) -> None:
    (fold,) = read_trained_model(model, ("0",)).folds
    reader = open_reader(model, fold, torch.device("cpu"))
    spec = make_lora_spec(reader.network, SurvivalSettings(lora_r=4))
    with torch.no_grad():
        for weight in attach_lora(reader.network, spec):
            weight.normal_(std=0.3)
    lora = {"spec": spec.__dict__, "weights": take_adapter(reader.network.state_dict(), ADAPTER)}
    changed = copy_model(model, tmp_path / "model", lora=lora, kept=True)
    (adapted,) = read_trained_model(changed).folds
    image = torch.randn(1, 24, 24, 24)
    with_lora = open_reader(changed, adapted, torch.device("cpu"))
    before = open_reader(model, fold, torch.device("cpu")).read(image, "lesions_ct")
    after = with_lora.read(image, "lesions_ct")
    assert np.abs(after - before)[:8].max() > 1e-3
    reader.adapter = ADAPTER
    np.testing.assert_allclose(after, reader.read(image, "lesions_ct"), rtol=1e-4, atol=1e-5)


def test_importance_is_measured_on_held_out_patients(project: Prognosis, model: Path, tmp_path: Path) -> None:
    records, _ = read_records(read_table(project.raw / "clinical.csv"), read_schema(project.raw / "clinical.yaml"))
    said = write_importance(model, records, tmp_path)
    assert "30 times, seed 0" in said
    with (tmp_path / "importance.csv").open() as file:
        rows = {row["input"]: row["kind"] for row in csv.DictReader(file)}
    assert rows == {"age": "record", "grade": "record", "lesions_ct": "image"}


def test_masks_are_drafted_where_there_are_none_and_marked(
    project: Prognosis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = Path(shutil.copytree(project.raw, tmp_path / "Dataset991_Unlabelled"))
    kept = raw / "labelsTr" / "P00_CT.nii.gz"
    before = kept.read_bytes()
    for number in (1, 2):
        (raw / "labelsTr" / f"P{number:02d}_CT.nii.gz").unlink()
    declared = json.loads((raw / "dataset.json").read_text())
    del declared["labels"]
    (raw / "dataset.json").write_text(json.dumps(declared))
    base = project.model_of("DuPLUSTrainer")
    draft = ["survival", "draft", str(raw), "--masks-from", str(base), "--device", "cpu"]
    assert main(draft) == 0
    assert kept.read_bytes() == before
    made: Any = nibabel.load(raw / "labelsTr" / "P01_CT.nii.gz")
    truth: Any = nibabel.load(project.raw / "labelsTr" / "P01_CT.nii.gz")
    both, all_voxels = made.get_fdata() * truth.get_fdata(), made.get_fdata() + truth.get_fdata()
    assert 2 * both.sum() / all_voxels.sum() > 0.5
    record = json.loads((raw / "predicted_labels.json").read_text())["predictions"]
    assert [sorted(one["labels"]) for one in record] == [["P01_CT", "P02_CT"]]
    assert json.loads((raw / "dataset.json").read_text())["labels"] == {"background": 0, "tumour": 1}
    capsys.readouterr()
    assert main(["survival", "check", str(raw)]) == 0
    assert "2 label files" in capsys.readouterr().out
    assert main(draft) == 0
    assert "none was predicted" in capsys.readouterr().out
    shutil.copy(project.raw / "labelsTr" / "P02_CT.nii.gz", raw / "labelsTr")  # somebody drew it after all
    assert main(["survival", "check", str(raw)]) == 0
    assert "1 label files" in capsys.readouterr().out
