"""Examples with `>>>` in docstrings of the package give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest
from nnunetv2.inference import predict_from_raw_data

import duplus_nnunet
from duplus_nnunet import api

PACKAGE = Path(duplus_nnunet.__file__).parent
FILES = Path(__file__).parents[2] / "compatibility" / "files"
# Names that examples may use beside those of their module: a small trained model, and an image for it.
NAMES = {
    "model_folder": str(FILES / "models" / "segmentation"),
    "image_file": str(FILES / "images" / "ct" / "P16_CT_0000.nii.gz"),
}
MODULES = sorted(
    ".".join(("duplus_nnunet", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in PACKAGE.rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name, monkeypatch):
    # nnU-Net's predictor prints a remark on every CPU, which is no output of the example.
    monkeypatch.setattr(predict_from_raw_data, "print", lambda *_: None, raising=False)
    failed, tried = doctest.testmod(importlib.import_module(name), extraglobs=NAMES)
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("exported", [api.DuPLUSPredictor, api.Options])
def test_the_public_interface_has_examples(exported):
    assert any(test.examples for test in doctest.DocTestFinder().find(exported))


def test_a_wrong_example_is_noticed():
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner().run(example, out=lambda _: None).failed == 1
