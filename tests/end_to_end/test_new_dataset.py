"""A dataset that the registry has never seen: from its dataset.json to a prediction by synonym, without any Python."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

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
    out = unknown.folder / "out"
    images = ("-i", folder / "imagesTs", "-o", out, "--targets", "w1")
    unknown.do("nnUNetv2_predict", *images, *MODEL, *unknown.fast)
    mask = np.asarray(nibabel.load(next(Path(out).glob("*.nii.gz"))).dataobj)
    assert set(np.unique(mask)) <= {0, 1}
    assert json.loads((out / "dataset.json").read_text())["duplus"]["legend"] == {"1": "struct_1"}
