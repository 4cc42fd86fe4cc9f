"""What the rows of the plug-in's table do in nnU-Net, each with a stock counterpart that stays as it was."""

import inspect
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from duplus_nnunet import plugin
from duplus_nnunet.adaptation.base import Base
from duplus_nnunet.adaptation.planning_base import get_base
from duplus_nnunet.errors import HostError, ModelError, PlansError
from duplus_nnunet.host import version as host

DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")


def recorder(calls):
    """Return a stand-in for a function of nnU-Net that records its calls."""

    def preprocess_dataset(dataset_id, plans_identifier="nnUNetPlans", configurations=DEFAULT_CONFIGURATIONS):
        calls.append((dataset_id, plans_identifier, tuple(configurations)))
        return "done"

    return preprocess_dataset


# --- an nnU-Net of an unsupported version


@pytest.fixture
def other_version(monkeypatch):
    def pretend(version):
        monkeypatch.setattr(metadata, "version", lambda name: version)

    return pretend


def test_our_class_on_another_version_names_both_versions_and_the_remedy(other_version):
    other_version("2.7.0")
    find = plugin.wrap_lookup(lambda *args: "stock")
    with pytest.raises(HostError) as caught:
        find("folder", "DuPLUSTrainer", "nnunetv2.training.nnUNetTrainer")
    assert all(
        text in str(caught.value) for text in ("2.7.0", host.SUPPORTED_HOSTS, f"pip install '{host.TESTED_HOSTS}'")
    )


def test_stock_class_on_another_version_is_found(other_version):
    other_version("2.7.0")
    find = plugin.wrap_lookup(lambda *args: "stock")
    assert find("folder", "nnUNetTrainer", "nnunetv2.training.nnUNetTrainer") == "stock"


@pytest.mark.slow
def test_only_look_up_and_commands_are_changed_on_another_version(run_python, pretend_version):
    pretend_version("2.7.0")
    code = "import nnunetv2.run.run_training\nfrom duplus_nnunet import plugin\nprint(*plugin.outcomes)"
    made = {place.rpartition(".")[2] for place in run_python(code).stdout.split()}
    assert made == {
        plugin.LOOKUP.attribute,
        "run_training_entry",
        "predict_entry_point",
        "predict_entry_point_modelfolder",
    }


# --- the look-up


def test_look_up_keeps_nnunets_signature():
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class as find

    assert list(inspect.signature(find).parameters)[:3] == ["folder", "class_name", "current_module"]


def test_look_up_hands_on_whatever_else_it_is_given():
    find = plugin.wrap_lookup(lambda *args, **kwargs: (args, kwargs))
    assert find("f", "Name", None, "base", verbose=True) == (("f", "Name", None, "base"), {"verbose": True})


# --- pretrained weights


class Ours(torch.nn.Linear):
    def load_pretrained(self, weights):
        self.got = weights


class Wrapper(torch.nn.Module):
    """Stands in for DistributedDataParallel, and for torch.compile, which hold a module under these names."""

    def __init__(self, name, network):
        super().__init__()
        self.add_module(name, network)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": {"weight": torch.ones(1)}, "_best_ema": np.float32(0.5)}, path)
    return str(path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: network,
        lambda network: Wrapper("module", network),
        lambda network: Wrapper("_orig_mod", network),
        lambda network: Wrapper("module", Wrapper("_orig_mod", network)),
    ],
    ids=["bare", "ddp", "compiled", "both"],
)
def test_our_network_loads_pretrained_weights_itself(checkpoint, wrap):
    network = Ours(1, 1)
    plugin.wrap_pretrained(pytest.fail)(wrap(network), checkpoint, verbose=True)
    assert list(network.got) == ["weight"]


def test_stock_network_is_left_to_nnunet():
    load = plugin.wrap_pretrained(lambda network, fname, verbose: (fname, verbose))
    assert load(torch.nn.Linear(1, 1), "weights.pth", verbose=True) == ("weights.pth", True)


def test_truncated_pretrained_weights_are_refused_by_name(checkpoint):
    Path(checkpoint).write_bytes(Path(checkpoint).read_bytes()[:200])
    with pytest.raises(ModelError, match=r"-pretrained_weights .*checkpoint_final\.pth"):
        plugin.read_pretrained(checkpoint)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02garbage"])
def test_file_that_is_no_checkpoint_is_refused_by_name(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.pth"):
        plugin.read_pretrained(str(path))


def test_missing_pretrained_weights_are_refused_by_name():
    with pytest.raises(ModelError, match=r"nowhere\.pth"):
        plugin.read_pretrained("nowhere.pth")


def test_file_without_network_weights_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="network_weights"):
        plugin.read_pretrained(str(tmp_path / "other.pth"))


def test_parts_with_fresh_weights_are_named_once():
    names = ["film.hidden.weight", "film.out.bias", "decoder.seg_layers.0.weight", "generator.base"]
    assert plugin.name_parts(names) == "decoder.seg_layers, film, generator"
    assert plugin.name_parts([]) == "none"


# --- configurations


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Write the plans of dataset 7, with the key `duplus` or without it."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name / "Dataset007_Test").mkdir(parents=True)
        monkeypatch.setenv(name, str(tmp_path / name))

    def write(**content):
        plans = {"configurations": {"3d_fullres": {}}, **content}
        path = tmp_path / "nnUNet_preprocessed" / "Dataset007_Test" / "ThePlans.json"
        path.write_text(json.dumps(plans), encoding="utf-8")

    return write


@pytest.mark.parametrize("asked", [["2d"], ["3d_fullres", "2d"], ["3d_cascade_fullres"]])
def test_configuration_that_our_plans_never_hold_is_refused_with_the_reason(dataset, asked):
    dataset(duplus={})
    calls = []
    with pytest.raises(PlansError, match=r"'(2d|3d_cascade_fullres)'.*'ThePlans'.*3d_fullres"):
        plugin.wrap_preprocess(recorder(calls))(7, "ThePlans", asked)
    assert calls == []


@pytest.mark.parametrize("asked", [DEFAULT_CONFIGURATIONS, list(DEFAULT_CONFIGURATIONS), ["3d_fullres"], ["3d_lowres"]])
def test_default_list_and_3d_configurations_go_to_nnunet(dataset, asked):
    dataset(duplus={})
    calls = []
    assert plugin.wrap_preprocess(recorder(calls))(7, "ThePlans", asked) == "done"
    assert calls == [(7, "ThePlans", tuple(asked))]


def test_stock_plans_keep_their_2d_configuration(dataset):
    dataset()
    calls = []
    plugin.wrap_preprocess(recorder(calls))(7, plans_identifier="ThePlans", configurations=["2d"])
    assert calls == [(7, "ThePlans", ("2d",))]


def test_missing_plans_are_left_to_nnunet(dataset):
    calls = []
    plugin.wrap_preprocess(recorder(calls))(7, "NoSuchPlans", ["2d"])
    assert calls


def test_default_list_is_the_one_that_nnunets_commands_use():
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    default = inspect.signature(api.preprocess_dataset).parameters["configurations"].default
    assert default == inspect.signature(api.preprocess).parameters["configurations"].default == DEFAULT_CONFIGURATIONS


@pytest.mark.parametrize("words", [["-c", "2d"], ["-c", "3d_fullres", "3d_cascade_fullres", "-np", "2"]])
def test_planning_command_refuses_2d_before_it_does_anything(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_plan_and_preprocess", "-d", "7", "-pl", "DuPLUSPlannerResEncM", *words])
    with pytest.raises(SystemExit, match=r"^error: .*'(2d|3d_cascade_fullres)'"):
        plugin.wrap_plan_entry(pytest.fail)()


@pytest.mark.parametrize(
    "words", [["-pl", "ExperimentPlanner", "-c", "2d"], ["-c", "2d"], ["-pl", "DuPLUSPlanner", "-h"]]
)
def test_planning_command_is_left_to_nnunet_otherwise(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_plan_and_preprocess", "-d", "7", *words])
    assert plugin.wrap_plan_entry(lambda: "planned")() == "planned"


def test_planning_command_checks_each_dataset_first(monkeypatch):
    from duplus_nnunet.planners import entry

    checked = []
    monkeypatch.setattr(entry, "check_dataset", lambda number, strict: checked.append((number, strict)))
    monkeypatch.setattr(entry, "require_folders", lambda: None)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_plan_and_preprocess", "-d", "7", "8", "-pl", "DuPLUSPlanner"])
    assert plugin.wrap_plan_entry(lambda: "planned")() == "planned"
    assert checked == [(7, False), (8, False)]


def test_planning_command_takes_the_base_out_of_what_nnunet_reads(monkeypatch):
    from duplus_nnunet.planners import entry

    monkeypatch.setattr(entry, "check_dataset", lambda number, strict: None)
    monkeypatch.setattr(entry, "require_folders", lambda: None)
    monkeypatch.setattr(entry, "read_planning_base", lambda folder: Base(f"base in {folder}", {}, {}))
    words = ["plan", "-d", "7", "--from-model", "MODEL", "-pl", "DuPLUSPlanner", "-np", "2"]
    monkeypatch.setattr(sys, "argv", words)
    seen = plugin.wrap_plan_entry(lambda: (list(sys.argv), get_base()))()
    assert seen == (["plan", "-d", "7", "-pl", "DuPLUSPlanner", "-np", "2"], Base("base in MODEL", {}, {}))
    assert (sys.argv, get_base()) == (words, None)


def test_stock_planners_accept_no_base(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["plan", "-d", "7", "--from-model", "MODEL"])
    with pytest.raises(SystemExit, match="-pl DuPLUSPlanner"):
        plugin.wrap_plan_entry(pytest.fail)()


@pytest.mark.slow
def test_nnunets_own_command_ends_with_the_message_alone(tmp_path):
    script = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
    command = [script, "-d", "7", "-pl", "DuPLUSPlanner", "-c", "2d"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "'2d'" in done.stderr
    assert "Traceback" not in done.stderr


# --- errors of nnU-Net's commands


def failing(error):
    def entry():
        raise error

    return entry


def test_our_error_ends_a_command_with_its_message():
    with pytest.raises(SystemExit, match=r"^error: too many plans$"):
        plugin.wrap_entry(failing(PlansError("too many plans")))()


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x")])
def test_error_of_another_origin_is_untouched(error):
    with pytest.raises(type(error)) as caught:
        plugin.wrap_entry(failing(error))()
    assert caught.value is error


PRETEND = """
import sys
sys.argv = {words}
from {module} import {entry}
{entry}()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "entry", "words"),
    [
        ("nnunetv2.run.run_training", "run_training_entry", ["7", "3d_fullres", "0", "-tr", "DuPLUSTrainer"]),
        (
            "nnunetv2.inference.predict_from_raw_data",
            "predict_entry_point",
            ["-d", "7", "-c", "3d_fullres", "--targets", "liver"],
        ),
    ],
)
def test_commands_of_another_version_report_it_without_a_stack_trace(run_python, pretend_version, module, entry, words):
    pretend_version("2.7.0")
    done = run_python(PRETEND.format(words=["command", *words, "-device", "cpu"], module=module, entry=entry))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error:")
    assert "2.7.0" in done.stderr
    assert "Traceback" not in done.stderr
