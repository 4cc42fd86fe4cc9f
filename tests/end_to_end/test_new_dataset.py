"""A dataset that the registry has never seen: from its dataset.json to a prediction by synonym, without any Python."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from ..phantom_dataset import write_phantom_dataset
from .conftest import Project

pytestmark = pytest.mark.slow

DATASET = "Dataset997_Widgets"
MODEL = ("-d", "997", "-c", "3d_fullres", "-f", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans")


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Phantoms under labels of a hospital's own, in folders of their own."""
    made = Project(tmp_path_factory.mktemp("unknown"), MODEL, dataset=DATASET)
    folder = made.raw
    folder.parent.mkdir()
    write_phantom_dataset(folder, 5, 1, 0)
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] = {
        f"struct_{value}" if value else name: value for name, value in description["labels"].items()
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return made


def test_a_new_dataset_needs_a_text_editor_only(unknown: Project) -> None:
    folder = unknown.raw
    drafted = unknown.do("duplus", "prompts", "draft", "997")
    assert "To review" in drafted
    file = folder / "prompts.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("synonyms: []", "synonyms: [first widget, W1]", 1), encoding="utf-8")
    assert "no problems" in unknown.do("duplus", "prompts", "check", "997")
    assert "prompts.yaml" in unknown.do("duplus", "prompts", "where", "997")
    unknown.do("nnUNetv2_plan_and_preprocess", "-d", "997", "-pl", "DuPLUSPlanner", "-npfp", "1", "-np", "1", "1", "1")
    unknown.change_settings(epochs=1, iterations_per_epoch=1, validation_iterations=1)
    unknown.do(
        "nnUNetv2_train", "997", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu"
    )
    checkpoint = torch.load(unknown.model / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["inference_allowed_mirroring_axes"] is None
    out = unknown.folder / "out"
    images = ("-i", folder / "imagesTs", "-o", out, "--targets", "w1")
    unknown.do("nnUNetv2_predict", *images, *MODEL, *unknown.fast)
    mask = np.asarray(nibabel.load(next(Path(out).glob("*.nii.gz"))).dataobj)
    assert set(np.unique(mask)) <= {0, 1}
    assert json.loads((out / "dataset.json").read_text())["duplus"]["legend"] == {"1": "struct_1"}


TWO_CONTEXTS = """\
dataset: Abdomen
contexts:
  abdomen_ct: {modality: computed tomography, region: abdomen, channel: CT, ids: [1-500]}
  abdomen_mr: {modality: magnetic resonance imaging, region: abdomen, ids: [501-600]}
targets: {liver: , spleen: }
"""


def write_case(folder: Path, name: str, low: int) -> None:
    """Write noise of which the lowest value is that of a CT (-1000) or of an MR (0), with two blocks for labels."""
    noise = np.random.default_rng(0).integers(low, low + 1600, (24, 24, 24)).astype(np.float32)
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[4:10, 4:20, 4:20], labels[12:18, 4:20, 4:20] = 1, 2
    for part, array, ending in (("imagesTr", noise, "_0000"), ("labelsTr", labels, "")):
        (folder / part).mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / part / f"{name}{ending}.nii.gz")


def test_cases_of_two_modalities_are_planned_each_in_its_context(tmp_path: Path) -> None:
    project = Project(tmp_path, MODEL, dataset="Dataset997_Abdomen")
    folder = project.raw
    folder.mkdir(parents=True)
    for number in (1, 2, 3, 507, 508):
        write_case(folder, f"case_{number:04}", -1000 if number < 500 else 0)
    labels = {"background": 0, "liver": 1, "spleen": 2}
    description = {"channel_names": {"0": "either_CT_or_MR"}, "labels": labels, "numTraining": 5}
    (folder / "dataset.json").write_text(json.dumps({**description, "file_ending": ".nii.gz"}))
    (folder / "prompts.yaml").write_text(TWO_CONTEXTS)
    plan = ("nnUNetv2_plan_and_preprocess", "-d", "997", "-pl", "DuPLUSPlanner", "-npfp", "1", "-np", "1", "--no_pp")
    project.do(*plan)
    contexts = json.loads(project.plans.read_text())["duplus"]["contexts"]
    assert {name: context["normalization_schemes"] for name, context in contexts.items()} == {
        "abdomen_ct": ["CTNormalization"], "abdomen_mr": ["ZScoreNormalization"],
    }  # fmt: skip
    table = json.loads((project.plans.parent / "duplus_cases.json").read_text())
    assert table["cases"]["case_0507"]["source"] == "Abdomen-abdomen_mr"
    (folder / "prompts.yaml").write_text(TWO_CONTEXTS.replace("1-500", "1-507").replace("501-", "508-"))
    done = project.run(*plan)
    assert done.returncode == 1
    assert "case_0507" in done.stderr + done.stdout
