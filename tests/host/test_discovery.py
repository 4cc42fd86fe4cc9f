"""Stock nnU-Net in a fresh process finds our classes, and everything else stays as without this package."""

import json
import os

import nnunetv2
import pytest

from duplus_nnunet import plugin

# nnU-Net's own callers of its look-up, one for each kind of class.
ASK_HOST = """
import sys
from nnunetv2.experiment_planning import plan_and_preprocess_api
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import get_labelmanager_class_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

def ask():
    return [
        recursive_find_trainer_class_by_name("DuPLUSTrainer"),
        get_labelmanager_class_from_plans({"label_manager": "DuPLUSLabelManager"}),
        PlansManager({"experiment_planner_used": "DuPLUSPlannerResEncL"}).experiment_planner_class,
    ]

def describe():
    return " ".join(f"{found.__module__.rpartition('.')[0]}:{found.__name__}" for found in ask())
"""
IN_WORKER = """
import multiprocessing

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(describe))
"""
FOUND = (
    "duplus_nnunet.trainers:DuPLUSTrainer duplus_nnunet.planners:DuPLUSLabelManager "
    "duplus_nnunet.planners:DuPLUSPlannerResEncL"
)
OUR_NAMES = [(folder, name) for folder, names in plugin.CLASSES.items() for name in names]


def look_up(name, folder):
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    return recursive_find_python_class(os.path.join(nnunetv2.__path__[0], *folder.split(".")[1:]), name, folder)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["print(describe())", IN_WORKER], ids=["process", "spawned_worker"])
def test_stock_nnunet_finds_our_classes(run_python, where):
    done = run_python(ASK_HOST + where)
    assert done.stdout.strip() == FOUND, done.stderr


@pytest.mark.slow
def test_a_folder_of_external_trainers_does_not_come_between(run_python, tmp_path):
    done = run_python(ASK_HOST + "print(describe())", nnUNet_extTrainer=str(tmp_path))
    assert done.stdout.strip() == FOUND, done.stderr


@pytest.mark.slow
def test_switched_off_hook_leaves_nnunet_without_our_classes(run_python):
    done = run_python(ASK_HOST + "print(describe())", DUPLUS_AUTOLOAD="0")
    assert "DuPLUSTrainer" in done.stderr
    assert done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("tests", ["nnunetv2.tests.test_find_objects", "nnunetv2.tests.test_paths"])
def test_tests_of_nnunet_pass_with_the_hook_live(run_python, tests):
    done = run_python(f"import unittest\nunittest.main('{tests}')")
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr


@pytest.mark.parametrize(("folder", "name"), OUR_NAMES)
def test_look_up_resolves_each_of_our_names(folder, name):
    assert look_up(name, folder).__name__ == name


@pytest.mark.parametrize(("folder", "name"), OUR_NAMES)
def test_each_of_our_classes_is_one_of_nnunets_kind(folder, name):
    bases = {
        "nnunetv2.experiment_planning": "ExperimentPlanner",
        "nnunetv2.preprocessing": "DefaultPreprocessor",
        "nnunetv2.preprocessing.normalization": "ImageNormalization",
        "nnunetv2.utilities.label_handling": "LabelManager",
        "nnunetv2.training.nnUNetTrainer": "nnUNetTrainer",
    }
    assert bases[folder] in {base.__name__ for base in look_up(name, folder).__mro__[1:]}


def test_our_name_is_unknown_in_a_folder_of_another_kind():
    assert look_up("DuPLUSTrainer", "nnunetv2.preprocessing.normalization") is None


def test_stock_name_resolves_to_the_stock_class():
    found = look_up("CTNormalization", "nnunetv2.preprocessing.normalization")
    assert found.__module__ == "nnunetv2.preprocessing.normalization.default_normalization_schemes"


@pytest.mark.parametrize("row", plugin.CHANGES, ids=lambda row: row.attribute)
def test_each_row_of_the_table_has_a_description_and_a_reason(row):
    assert row.what
    assert row.reason


def test_no_name_of_nnunet_is_changed_twice():
    places = [row.dotted_name for row in plugin.CHANGES]
    assert len(places) == len(set(places))


@pytest.mark.slow
def test_each_row_of_the_table_is_made_in_a_fresh_process(run_python):
    modules = sorted({row.module for row in plugin.CHANGES})
    code = f"import importlib, json\nfor name in {modules}: importlib.import_module(name)\n"
    done = run_python(code + "from duplus_nnunet import plugin\nprint(json.dumps(plugin.outcomes))")
    assert json.loads(done.stdout) == {row.dotted_name: "" for row in plugin.CHANGES}


@pytest.mark.slow
def test_nothing_else_of_nnunet_is_changed(run_python):
    """Compare every name in every module that the table touches with and without the hook."""
    code = f"""
import importlib
for name in {sorted({row.module for row in plugin.CHANGES})}:
    for key, value in vars(importlib.import_module(name)).items():
        if getattr(value, "__module__", None) == name:
            print(name + "." + key, hasattr(value, "__wrapped__"))
"""
    live, off = (run_python(code, DUPLUS_AUTOLOAD=switch).stdout.splitlines() for switch in ("1", "0"))
    changed = {line.split()[0] for line in set(live) - set(off)}
    functions = {row.dotted_name for row in plugin.CHANGES if row.attribute != "nnUNetPredictor"}
    assert changed == functions
