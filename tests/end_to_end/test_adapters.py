"""A trained model is adapted to another scanner's images, by the commands that a user types; the old answers stay."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from duplus_nnunet.data.phantom_sources import write_phantom_sources

from .conftest import FAST, WORKER, Project

pytestmark = pytest.mark.slow

BASE, PET, MR = "Dataset901_PhantomCT", "Dataset903_PhantomPET", "Dataset902_PhantomMR"
LORA = ("-tr", "DuPLUSLoRATrainer", "-p", "DuPLUSPlans")
# The base's labels of targets, and what the adapter's own dataset calls them.
ALIASES = {"Spleen": "lien", "Liver": "hepar"}
SHORT: dict[str, Any] = {"epochs": 1, "iterations_per_epoch": 4, "validation_iterations": 1}


class Adapted(Project):
    """nnU-Net's three folders with a base and two adapters."""

    def of(self, dataset: str) -> "Adapted":
        """The same folders, seen from another dataset."""
        return Adapted(self.folder, dataset=dataset)

    @property
    def model(self) -> Path:
        trainer = "DuPLUSTrainer" if self.dataset == BASE else "DuPLUSLoRATrainer"
        return self.folder / "results" / self.dataset / f"{trainer}__DuPLUSPlans__3d_fullres"

    @property
    def weights(self) -> Path:
        return self.folder / "results" / BASE / "DuPLUSTrainer__DuPLUSPlans__3d_fullres/fold_0/checkpoint_final.pth"

    def adapt(self, dataset: str, **settings: Any) -> "Adapted":
        """Plan a dataset for the base, and train its adapter."""
        other, number = self.of(dataset), dataset[7:10]
        self.do("duplus", "adapt", "plan", number, "--from-model", self.model, "-np", "1")
        plans = json.loads(other.plans.read_text())
        plans["duplus"]["settings"] |= {**SHORT, "adaptation": {"r": 4, "lora_alpha": 8}, **settings}
        other.plans.write_text(json.dumps(plans))
        words = ("nnUNetv2_train", number, "3d_fullres", "0", *LORA, "-device", "cpu")
        self.do(*words, "-pretrained_weights", self.weights, **WORKER)
        return other

    def ask(self, model: Path, images: str, out: Path, *options: str | Path, mirrored: bool = False) -> Path:
        """Predict the test images of a dataset."""
        folder = self.folder / "raw" / images / "imagesTs"
        fast = [word for word in FAST if word != "--disable_tta" or not mirrored]
        words = ("-i", folder, "-o", out, "-m", model, "-f", "0", *fast, "--save_probabilities", *options)
        self.do("nnUNetv2_predict_from_modelfolder", *words)
        return out


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    made = Adapted(tmp_path_factory.mktemp("adapted"), dataset=BASE)
    (made.folder / "raw").mkdir()
    write_phantom_sources(made.folder / "raw", 5, 1, 0)
    made.do("nnUNetv2_plan_and_preprocess", "-d", "901", "-pl", "DuPLUSPlanner", "-npfp", "1", "-np", "1", "1", "1")
    made.change_settings(**SHORT, mirror_left_right=True, mirror_other_axes=True)
    made.do("nnUNetv2_train", "901", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
    return made


@pytest.fixture(scope="module")
def pet(base: Adapted) -> Adapted:
    return base.adapt(PET)


@pytest.fixture(scope="module")
def before(base: Adapted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the base says of its own images."""
    return base.ask(base.model, BASE, tmp_path_factory.mktemp("before"))


def read_names(folder: Path, name: str) -> Any:
    """Read a label map as names: beside another adapter, a new label may have another value than alone."""
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    names = np.array(["?"] * 256, dtype=object)
    for label, value in labels.items():
        names[value] = label
    return names[np.asarray(nibabel.load(folder / name).dataobj)]


def require_same(first: Path, second: Path) -> None:
    files = sorted(file.name for file in first.glob("*.nii.gz"))
    assert files
    assert files == sorted(file.name for file in second.glob("*.nii.gz"))
    for name in files:
        np.testing.assert_array_equal(*(read_names(folder, name) for folder in (first, second)))
        numbers = [np.load(folder / name.replace(".nii.gz", ".npz"))["probabilities"] for folder in (first, second)]
        np.testing.assert_array_equal(*numbers)


def read_probabilities(folder: Path) -> dict[str, Any]:
    """Read the probabilities of the one case in a folder, by target; channels are in the order of dataset.json."""
    (file,) = folder.glob("*.npz")
    names = [name for name in json.loads((folder / "dataset.json").read_text())["labels"] if name != "background"]
    return dict(zip(names, np.load(file)["probabilities"], strict=True))


def test_the_plans_are_the_bases_where_they_have_to_be(base: Adapted, pet: Adapted) -> None:
    own, theirs = (json.loads(one.plans.read_text()) for one in (pet, base))
    for name in ("patch_size", "batch_size", "architecture", "spacing"):
        assert own["configurations"]["3d_fullres"][name] == theirs["configurations"]["3d_fullres"][name]
    assert own["duplus"]["centres"] == theirs["duplus"]["centres"]
    assert own["duplus"]["base"]["model"].startswith(BASE)
    assert own["duplus"]["settings"]["mirror_left_right"]
    assert own["duplus"]["settings"]["mirror_other_axes"]
    assert own["duplus"]["contexts"]["phantom_pet"]["normalization_schemes"] == ["SUVNormalization"]
    assert own["configurations"]["3d_fullres"]["data_identifier"] == "DuPLUSPlans_3d_fullres"


def test_adamw_trains_the_adapter_alone_at_its_own_rate(pet: Adapted) -> None:
    found = torch.load(pet.model / "fold_0/checkpoint_final.pth", weights_only=True)
    (group,) = found["optimizer_state"]["param_groups"]
    assert group["betas"] == (0.9, 0.999)
    assert group["initial_lr"] == 3e-3
    expected = [name for name in found["network_weights"] if ".lora_" in name or name.startswith("adapters.")]
    own = {name for name in expected if ".all_modules." not in name and not name.startswith("decoder.encoder.")}
    assert len(group["params"]) == len([name for name in own if not name.endswith("base_checksum")])


def test_the_base_answers_to_the_bit_as_before(base: Adapted, pet: Adapted, before: Path, tmp_path: Path) -> None:
    require_same(before, base.ask(pet.model, BASE, tmp_path / "plain", "--context", "phantom_ct"))
    mirrored = base.ask(base.model, BASE, tmp_path / "base_mirrored", mirrored=True)
    require_same(mirrored, base.ask(pet.model, BASE, tmp_path / "mirrored", "--context", "phantom_ct", mirrored=True))


def test_old_and_new_contexts_are_listed(base: Adapted, pet: Adapted) -> None:
    listed = base.do("duplus", "predict", "-m", pet.model, "--list-targets")
    assert "context phantom_ct (default)" in listed
    assert "context phantom_pet" in listed


def test_an_adapter_alone_beside_its_base_says_the_same(
    base: Adapted, pet: Adapted, before: Path, tmp_path: Path
) -> None:
    base.do("duplus", "adapt", "export", pet.model, "-o", tmp_path / "adapter")
    options = ("--adapters", tmp_path / "adapter")
    own = base.ask(pet.model, PET, tmp_path / "own", "--context", "phantom_pet")
    require_same(own, base.ask(base.model, PET, tmp_path / "beside", "--context", "phantom_pet", *options))
    require_same(before, base.ask(base.model, BASE, tmp_path / "base", "--context", "phantom_ct", *options))


def test_merged_it_is_a_plain_model_that_says_the_same(base: Adapted, pet: Adapted, tmp_path: Path) -> None:
    base.do("duplus", "adapt", "merge", pet.model, "-f", "0", "-o", tmp_path / "merged")
    options = ("--precision", "float32")
    asked = read_probabilities(base.ask(pet.model, PET, tmp_path / "own", "--context", "phantom_pet", *options))
    plain = read_probabilities(base.ask(tmp_path / "merged", PET, tmp_path / "out", *options))
    own = {ALIASES.get(name, name): found for name, found in asked.items()}
    assert own.keys() == plain.keys()
    # nnU-Net sums windows in float16: where they end, in few voxels, rounding moves a logit by a digit.
    assert all(np.median(np.abs(own[name] - plain[name])) < 1e-5 for name in own)
    assert all(np.abs(own[name] - plain[name]).mean() < 1e-3 < own[name].std() for name in own)
    again = base.run("duplus", "adapt", "merge", pet.model, "-o", tmp_path / "merged")
    assert again.returncode == 1
    assert "not overwritten" in again.stderr


def test_adapters_stand_side_by_side(base: Adapted, pet: Adapted, tmp_path: Path) -> None:
    mr = base.adapt(MR)
    folders = [one.model / "fold_0" for one in (pet, mr)]
    assert all((folder / "adapter.safetensors").is_file() for folder in folders)
    for one, context in ((pet, "phantom_pet"), (mr, "phantom_mr")):
        alone = base.ask(one.model, one.dataset, tmp_path / f"{context}_alone", "--context", context)
        beside = ("--context", context, "--adapters", *folders)
        require_same(alone, base.ask(base.model, one.dataset, tmp_path / context, *beside))
    manifest = json.loads((tmp_path / "phantom_mr" / "manifest.json").read_text())
    assert sum(name.startswith("adapter ") for name in manifest["run"]["checkpoints"]) == 2


def test_the_card_says_what_the_adapter_is(base: Adapted, pet: Adapted) -> None:
    card = json.loads(base.do("duplus", "adapt", "show", pet.model / "fold_0", "--json"))
    assert card["parameters"]["lora"] < card["parameters"]["base"]
    assert set(card["targets"]) == {"phantom_pet"}
    assert card["scores"]["PhantomPET"].keys() == set(card["targets"]["phantom_pet"])
    listed = base.do("duplus", "adapt", "list")
    assert PET in listed
    assert "rank 4" in base.do("duplus", "adapt", "show", pet.model / "fold_0")


def test_a_training_goes_on_without_naming_the_base_again(base: Adapted, pet: Adapted) -> None:
    plans = json.loads(pet.plans.read_text())
    plans["duplus"]["settings"]["epochs"] = 2
    pet.plans.write_text(json.dumps(plans))
    base.do("nnUNetv2_train", "903", "3d_fullres", "0", *LORA, "-device", "cpu", "--c")
    logs = "".join(file.read_text() for file in (pet.model / "fold_0").glob("training_log_*.txt"))
    assert "Epoch 1" in logs


def test_an_adapter_of_another_base_is_refused(base: Adapted, pet: Adapted, tmp_path: Path) -> None:
    import torch

    shutil.copytree(base.model, tmp_path / "other")
    file = tmp_path / "other" / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["network_weights"]["generator.base"] += 0.1
    del checkpoint["duplus_checksums"]
    torch.save(checkpoint, file)
    images = ("-i", base.raw / "imagesTs", "-o", tmp_path / "out", "-m", tmp_path / "other", "-f", "0", *FAST)
    words = (*images, "--context", "phantom_pet", "--adapters", pet.model / "fold_0")
    done = base.run("nnUNetv2_predict_from_modelfolder", *words)
    assert done.returncode == 1
    assert "was trained for another base" in done.stderr


def test_without_a_base_nothing_is_trained(base: Adapted, pet: Adapted) -> None:
    words = (
        "nnUNetv2_train",
        "903",
        "3d_fullres",
        "1",
        "-tr",
        "DuPLUSLoRATrainer",
        "-p",
        "DuPLUSPlans",
        "-device",
        "cpu",
    )
    done = base.run(*words)
    assert done.returncode == 1
    assert "add -pretrained_weights" in done.stderr
    stock = base.run("nnUNetv2_train", "901", "3d_fullres", "1", *LORA, "-device", "cpu")
    assert stock.returncode == 1
    assert "duplus adapt plan" in stock.stderr


def test_all_weights_can_be_tuned_from_the_base_too(base: Adapted, pet: Adapted) -> None:
    words = ("903", "3d_fullres", "0", "-tr", "DuPLUSTrainer", "-p", "DuPLUSPlans", "-device", "cpu")
    base.do("nnUNetv2_train", *words, "-pretrained_weights", base.weights)
    plans = json.loads(
        (base.folder / "results" / PET / "DuPLUSTrainer__DuPLUSPlans__3d_fullres/plans.json").read_text()
    )
    assert "base" not in plans["duplus"]


def test_the_text_encoder_can_learn_with_an_adapter_and_the_base_hears_nothing_of_it(
    base: Adapted, pet: Adapted, before: Path, tmp_path: Path
) -> None:
    plans = json.loads(pet.plans.read_text())
    plans["duplus"]["settings"] |= {"epochs": 1, "iterations_per_epoch": 1, "text_adapter": {"enabled": True, "r": 2}}
    plans["plans_name"] = "DuPLUSWithText"
    (pet.plans.parent / "DuPLUSWithText.json").write_text(json.dumps(plans))
    words = ("903", "3d_fullres", "0", "-tr", "DuPLUSLoRATrainer", "-p", "DuPLUSWithText", "-device", "cpu")
    assert "with LoRA on 12 layers" in base.do("nnUNetv2_train", *words, "-pretrained_weights", base.weights)
    model = pet.model.with_name("DuPLUSLoRATrainer__DuPLUSWithText__3d_fullres")
    require_same(before, base.ask(model, BASE, tmp_path / "old", "--context", "phantom_ct"))
    new = read_probabilities(base.ask(model, PET, tmp_path / "new", "--context", "phantom_pet"))
    plain = read_probabilities(base.ask(base.model, PET, tmp_path / "plain", "--context", "phantom_ct"))
    assert any(np.abs(new[name] - plain[name]).max() > 0 for name in new.keys() & plain.keys())
    images = ("-i", base.raw / "imagesTs", "-o", tmp_path / "out", "-m", base.model, "-f", "0", *FAST)
    refused = base.run(
        "nnUNetv2_predict_from_modelfolder", *images, "--adapters", model / "fold_0", "--context", "phantom_pet"
    )
    assert refused.returncode == 1
    assert "text encoder" in refused.stderr
