"""Untested versions of nnU-Net are judged by the names and signatures that they offer."""

import ast
import importlib
import inspect
import os
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch

import duplus_nnunet.planners
import duplus_nnunet.trainers
from duplus_nnunet import plugin
from duplus_nnunet.errors import HostError
from duplus_nnunet.host import probe, version
from duplus_nnunet.host.interface import NEEDS, Need, Use
from duplus_nnunet.trainers import segmentation, survival

PACKAGE = Path(duplus_nnunet.__file__).parent
OUR_CLASSES = [
    getattr(importlib.import_module(home), name) for names in plugin.CLASSES.values() for name, home in names.items()
]
TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
FILE = "training/nnUNetTrainer/nnUNetTrainer.py"
ASK = """
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find

if __name__ == "__main__":
    print(find("DuPLUSTrainer").__name__, find("DuPLUSLoRATrainer").__name__)
"""
ASK_IN_WORKER = (
    ASK
    + """
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(find, ("DuPLUSTrainer",)).__name__)
"""
)
STOCK = """
import nnunetv2.run.run_training, nnunetv2.inference.predict_from_raw_data
from duplus_nnunet import plugin
print(*plugin.outcomes)
"""


@pytest.fixture
def installed(monkeypatch):
    """Pretend that another version of nnU-Net is installed."""
    monkeypatch.setenv(version.PROBED_VARIABLE, "")

    def pretend(number):
        monkeypatch.setattr(metadata, "version", lambda name: number)

    return pretend


# --- by number


@pytest.mark.parametrize("number", ["2.8", "2.8.0", "2.8.1", "2.8.99", "2.8.2rc1"])
def test_tested_version_is_supported_without_a_probe(installed, monkeypatch, number):
    installed(number)
    monkeypatch.setattr(probe, "probe_host", pytest.fail)
    assert version.check_host() == number


@pytest.mark.parametrize("number", ["2.7.9", "3.0", "1.7", "unknown"])
def test_older_version_and_next_major_version_are_refused_without_a_probe(installed, monkeypatch, number):
    installed(number)
    monkeypatch.setattr(probe, "probe_host", pytest.fail)
    with pytest.raises(HostError) as caught:
        version.check_host()
    assert all(text in str(caught.value) for text in (number, version.SUPPORTED_HOSTS, "pip install"))


@pytest.mark.parametrize("number", ["2.9", "2.9.0.dev1", "2.80"])
def test_newer_version_is_supported_but_not_tested(number):
    assert (version.is_supported(number), version.is_tested(number)) == (True, False)


def test_missing_nnunet_is_reported_with_the_remedy(monkeypatch):
    def fail(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", fail)
    with pytest.raises(HostError, match=r"pip install 'nnunetv2"):
        version.check_host()


# --- by what is offered


def test_newer_version_that_passes_is_warned_of_once(installed, capfd):
    installed("2.9.0")
    assert [version.check_host(), version.check_host()] == ["2.9.0", "2.9.0"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning:")
    assert "2.9.0" in line
    assert version.TESTED_HOSTS in line


def test_workers_neither_probe_nor_warn_again(installed, monkeypatch, capfd):
    installed("2.9.0")
    version.check_host()
    capfd.readouterr()
    monkeypatch.setattr(probe, "probe_host", pytest.fail)
    version.check_host()
    assert capfd.readouterr().err == ""
    assert os.environ[version.PROBED_VARIABLE] == "2.9.0"


def test_newer_version_that_fails_is_refused_by_the_missing_names(installed, monkeypatch):
    installed("2.9.0")
    trainer = sys.modules[TRAINER].nnUNetTrainer
    monkeypatch.delattr(trainer, "get_dataloaders")
    monkeypatch.setattr(trainer, "save_checkpoint", lambda self, path: None)
    with pytest.raises(HostError) as caught:
        version.check_host()
    message = str(caught.value)
    assert f"{TRAINER}.nnUNetTrainer.get_dataloaders: missing" in message
    assert f"{TRAINER}.nnUNetTrainer.save_checkpoint: " in message
    assert "'filename'" in message
    assert "'path'" in message
    assert f"pip install '{version.TESTED_HOSTS}'" in message
    assert os.environ[version.PROBED_VARIABLE] == ""


def test_installed_version_offers_all_that_is_needed():
    assert probe.list_differences(probe.probe_host()) == []


def check(use, parameters, function):
    """Probe one function of a made-up module."""
    module = ModuleType("made_up")
    module.function = function
    need = Need("made_up", "function", use, parameters)
    return probe._probe(need, lambda name: module).difference


@pytest.mark.parametrize(
    ("use", "parameters", "function", "differs"),
    [
        (Use.CALLED, ("a",), lambda a: a, ""),
        (Use.CALLED, ("a",), lambda a, b=1, *args, **kwargs: a, ""),
        (Use.CALLED, ("a",), lambda a, b: a, "'b'"),
        (Use.CALLED, ("a",), lambda b=1: b, "'a'"),
        (Use.OVERRIDDEN, ("a",), lambda a: a, ""),
        (Use.OVERRIDDEN, ("a",), lambda a, b=1: a, "'b'"),
        (Use.OVERRIDDEN, ("a", "..."), lambda a, b: a, ""),
        (Use.OVERRIDDEN, ("a|b",), lambda a: a, ""),
        (Use.OVERRIDDEN, ("a|b",), lambda b: b, ""),
        (Use.OVERRIDDEN, ("a|b",), lambda c: c, "'a' or 'b'"),
        (Use.REPLACED, None, lambda c: c, ""),
        (Use.CALLED, (), 3, "signature"),
    ],
)
def test_parameters_are_compared_by_use(use, parameters, function, differs):
    difference = check(use, parameters, function)
    assert (differs in difference) if differs else (difference == "")


def test_missing_module_is_named_with_the_reason():
    need = Need("nnunetv2.no_such_module", "function", Use.CALLED, ())
    assert "ModuleNotFoundError" in probe._probe(need, importlib.import_module).difference


def test_attribute_that_only_instances_have_is_found_by_its_use():
    class Owner:
        def __init__(self):
            self.made = 1

    module = ModuleType("made_up")
    module.Owner = Owner
    needs = [Need("made_up", f"Owner.{name}", Use.READ) for name in ("made", "not_made")]
    found = [probe._probe(need, lambda name: module).difference for need in needs]
    assert found == ["", "missing"]


# --- the table is complete


def list_overridden():
    """List each name of a class of nnU-Net that one of our classes overrides, with our function."""
    for kind in OUR_CLASSES:
        for name in dir(kind):
            definers = [base for base in kind.__mro__ if name in vars(base)]
            hosts = [base for base in definers if base.__module__.startswith("nnunetv2.")]
            if not hosts or not definers[0].__module__.startswith("duplus_nnunet."):
                continue
            if name == "__init__" or not name.startswith(("__", "_abc")):
                yield hosts[-1], name, getattr(kind, name)


@pytest.mark.parametrize(
    ("owner", "name", "ours"), [pytest.param(*row, id=f"{row[0].__name__}.{row[1]}") for row in list_overridden()]
)
def test_each_overridden_name_is_in_the_table_with_our_parameters(owner, name, ours):
    (need,) = (row for row in NEEDS if row.dotted_name == f"{owner.__module__}.{owner.__name__}.{name}")
    assert need.use is Use.OVERRIDDEN
    accepted = inspect.signature(ours).parameters if need.parameters is not None else {}
    for item in need.parameters or ():
        if item == "...":
            assert any(one.kind is one.VAR_KEYWORD for one in accepted.values()) or name == "__init__"
        else:
            assert set(item.split("|")) <= accepted.keys()


def list_imported():
    """List each name that the package imports from a module of nnU-Net."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nnunetv2."):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("place", sorted(set(list_imported())))
def test_each_imported_name_is_in_the_table(place):
    known = {need.dotted_name for need in NEEDS} | {need.module for need in NEEDS}
    assert place in known or any(row.startswith(f"{place}.") for row in known)


def test_each_replaced_name_is_in_the_table():
    replaced = {need.dotted_name for need in NEEDS if need.use is Use.REPLACED}
    assert {row.dotted_name for row in plugin.CHANGES} <= replaced


def test_no_name_is_in_the_table_twice():
    places = [need.dotted_name for need in NEEDS]
    assert len(places) == len(set(places))


# --- names that differ between versions


@pytest.mark.parametrize("keyword", [None, "filename_or_checkpoint", "checkpoint"])
def test_checkpoint_is_loaded_by_either_name_of_the_argument(monkeypatch, keyword):
    given, content = [], {"network_weights": {}}
    monkeypatch.setattr(segmentation.nnUNetTrainer, "load_checkpoint", lambda self, source: given.append(source))
    monkeypatch.setattr(survival, "take_checkpoint", lambda self, source: given.append(source))
    monkeypatch.setattr(segmentation.DuPLUSTrainer, "optimizer", torch.optim.SGD([torch.zeros(1)], 1.0), raising=False)
    for kind in (segmentation.DuPLUSTrainer, survival.DuPLUSSurvivalTrainer):
        trainer = object.__new__(kind)
        trainer.load_checkpoint(content) if keyword is None else trainer.load_checkpoint(**{keyword: content})
    assert [source is content for source in given] == [True, True]


# --- in fresh processes


@pytest.mark.slow
@pytest.mark.parametrize("code", [ASK, ASK_IN_WORKER], ids=["process", "spawned_worker"])
def test_newer_version_with_a_renamed_argument_runs_with_one_warning(run_python, pretend_version, edit_host, code):
    pretend_version("2.9.0")
    edit_host(FILE, "filename_or_checkpoint", "checkpoint")
    done = run_python(code)
    assert done.stdout.split()[:2] == ["DuPLUSTrainer", "DuPLUSLoRATrainer"], done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("warning: ")] == [
        line for line in done.stderr.splitlines() if "2.9.0" in line
    ]
    assert done.stderr.count("2.9.0") == 1


@pytest.mark.slow
def test_newer_version_that_lacks_a_name_is_refused_for_our_classes(run_python, pretend_version, edit_host):
    pretend_version("2.9.0")
    edit_host(FILE, "def on_validation_epoch_end(self, val_outputs", "def on_validation_epoch_end(self, outputs")
    done = run_python(ASK)
    assert done.returncode == 1
    assert f"{TRAINER}.nnUNetTrainer.on_validation_epoch_end" in done.stderr
    assert "'val_outputs'" in done.stderr


@pytest.mark.slow
def test_module_that_lacks_a_name_is_left_as_it_is_except_for_its_commands(run_python, pretend_version, edit_host):
    pretend_version("2.9.0")
    edit_host("inference/predict_from_raw_data.py", "def predict_from_data_iterator", "def predict_from_iterator")
    made = {place.rpartition(".")[2] for place in run_python(STOCK).stdout.split()}
    assert "nnUNetPredictor" not in made
    assert {"predict_entry_point", plugin.LOOKUP.attribute, "load_pretrained_weights"} <= made


@pytest.mark.slow
def test_untested_version_does_not_warn_a_stock_user(run_python, pretend_version):
    pretend_version("2.9.0")
    done = run_python(STOCK)
    assert "warning:" not in done.stderr
    assert "nnUNetPredictor" in done.stdout
