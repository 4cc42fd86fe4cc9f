"""`duplus doctor` says what is wrong and what to do, and its exit code says whether it matters."""

import importlib
import json
import sys

import pytest

from duplus_nnunet import _autoload, cli, doctor, plugin
from duplus_nnunet.commands import doctor as command
from duplus_nnunet.doctor import Diagnosis
from duplus_nnunet.errors import HostError
from duplus_nnunet.networks import acceleration

FINE = Diagnosis("versions", "python", "3.11")
FAULT = Diagnosis("folders", "nnUNet_raw", "not set", ok=False, remedy="export it")
ABSENT = Diagnosis("texts", "text encoder", "not installed", ok=False, needed=False, remedy="pip install it")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in doctor.FOLDERS:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def by_name(findings):
    return {finding.name: finding for finding in findings}


# --- the report


@pytest.mark.parametrize(("findings", "code"), [([FINE], 0), ([FINE, ABSENT], 0), ([FINE, FAULT], 1)])
def test_exit_code_is_one_only_if_something_needed_is_wrong(monkeypatch, capsys, findings, code):
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert cli.main(["doctor"]) == code


def test_fault_is_shown_with_its_remedy():
    text = command.to_text([FINE, FAULT])
    assert "WRONG   nnUNet_raw: not set\n          -> export it" in text
    assert text.endswith("Not ready; wrong or missing: nnUNet_raw.")


def test_what_is_not_needed_is_absent_not_wrong():
    text = command.to_text([ABSENT])
    assert "absent  text encoder" in text
    assert text.endswith("Ready.")


def test_report_in_json_is_ordered_by_topic_and_name():
    report = json.loads(json.dumps(command.to_json([FINE, FAULT])))
    assert report["ok"] is False
    assert report["folders"]["nnUNet_raw"] == {"ok": False, "needed": True, "found": "not set", "remedy": "export it"}


def test_json_is_all_that_goes_to_stdout(monkeypatch, capsys):
    def examine():
        print("some package greets")
        return [FINE]

    monkeypatch.setattr(doctor, "examine", examine)
    cli.main(["doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["ok"] is True


# --- single checks


def test_live_hook_is_told():
    finding = next(doctor.check_hook())
    assert (finding.ok, finding.found) == (True, f"live in {sys.executable}")


def test_switched_off_hook_is_told_with_the_variable(monkeypatch):
    monkeypatch.setattr(_autoload, "is_live", lambda: False)
    monkeypatch.setenv("DUPLUS_AUTOLOAD", "0")
    finding = next(doctor.check_hook())
    assert finding.is_fault
    assert finding.remedy == "unset DUPLUS_AUTOLOAD"


def test_hook_that_was_not_read_is_told_with_the_way_to_reinstall(monkeypatch):
    monkeypatch.setattr(_autoload, "is_live", lambda: False)
    monkeypatch.delenv("DUPLUS_AUTOLOAD", raising=False)
    assert "pip install --force-reinstall" in next(doctor.check_hook()).remedy


@pytest.mark.parametrize("check", [doctor.check_classes, doctor.check_changes])
def test_dead_hook_is_the_only_fault_that_it_causes(monkeypatch, check):
    monkeypatch.setattr(_autoload, "is_live", lambda: False)
    assert not any(finding.is_fault for finding in check())


def test_unsupported_nnunet_is_a_fault(monkeypatch):
    def fail():
        raise HostError("nnU-Net 2.7 is installed")

    monkeypatch.setattr(plugin, "check_host", fail)
    finding = by_name(doctor.check_versions())["nnunetv2"]
    assert finding.is_fault
    assert plugin.SUPPORTED_HOSTS in finding.remedy


def test_missing_distribution_is_a_fault_with_the_line_to_install_it(monkeypatch):
    monkeypatch.setattr(doctor, "DISTRIBUTIONS", ("no-such-distribution",))
    assert by_name(doctor.check_versions())["no-such-distribution"].remedy == "pip install no-such-distribution"


def test_change_that_was_not_made_is_a_fault(monkeypatch):
    importlib.import_module(plugin.LOOKUP.module)  # the first import makes the change
    monkeypatch.setitem(plugin.outcomes, plugin.LOOKUP.place, "AttributeError: gone")
    monkeypatch.setattr(plugin, "CHANGES", (plugin.LOOKUP,))
    finding = next(doctor.check_changes())
    assert finding.is_fault
    assert finding.found == "AttributeError: gone"


def test_class_that_cannot_be_imported_is_a_fault(monkeypatch):
    monkeypatch.setattr(plugin, "CLASSES", {"nnunetv2.preprocessing": {"DuPLUSNothing": "duplus_nnunet.errors"}})
    monkeypatch.setattr(doctor, "_look_up", lambda folder, name: getattr(doctor, name))
    assert "AttributeError" in next(doctor.check_classes()).found


def test_folders_that_are_there_are_fine(folders):
    assert all(finding.ok for finding in doctor.check_folders())


@pytest.mark.parametrize("name", doctor.FOLDERS)
def test_folder_that_is_not_set_is_a_fault(folders, monkeypatch, name):
    monkeypatch.delenv(name)
    finding = by_name(doctor.check_folders())[name]
    assert finding.is_fault
    assert finding.remedy.startswith(f"export {name}=")


def test_folder_that_nnunet_can_make_is_fine(folders, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(folders / "new" / "results"))
    assert by_name(doctor.check_folders())["nnUNet_results"].ok


def test_raw_folder_must_exist(folders, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(folders / "new"))
    assert by_name(doctor.check_folders())["nnUNet_raw"].found.endswith("not a folder")


def test_file_in_the_place_of_a_folder_is_a_fault(folders, monkeypatch):
    (folders / "file").touch()
    monkeypatch.setenv("nnUNet_results", str(folders / "file"))
    assert by_name(doctor.check_folders())["nnUNet_results"].is_fault


def test_folder_that_cannot_be_written_is_a_fault_where_nnunet_writes(folders, monkeypatch):
    monkeypatch.setattr(doctor, "_is_writable", lambda folder: False)
    found = by_name(doctor.check_folders())
    assert [found[name].ok for name in doctor.FOLDERS] == [True, False, False]


def test_shipped_embeddings_are_there():
    assert by_name(doctor.check_texts())["shipped embeddings"].ok


def test_missing_text_encoder_is_no_fault_and_names_the_extra(monkeypatch):
    from duplus_nnunet.prompt_registry import encoder_folder

    monkeypatch.setattr(encoder_folder, "find_wheel", lambda: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    finding = by_name(doctor.check_texts())["text encoder"]
    assert (finding.ok, finding.is_fault) == (False, False)
    assert "duplus-nnunet[offline]" in finding.remedy


def test_device_is_named():
    assert next(doctor.check_device()).ok


@pytest.mark.parametrize("built", [True, False])
def test_a_gpu_is_told_with_its_kernels_which_it_can_do_without(monkeypatch, built):
    monkeypatch.setattr(doctor, "_describe_device", lambda: "cuda: a GPU")
    monkeypatch.setattr(acceleration, "find_kernels", lambda device: acceleration if built else None)
    kernels = by_name(doctor.check_device())["kernels"]
    assert (kernels.ok, kernels.is_fault) == (built, False)
    assert built or "install gcc" in kernels.remedy


# --- the command around it


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_sub_command_has_help_with_an_example(capsys, name):
    try:
        code = cli.main([name, "--help"])
    except SystemExit as ended:
        code = ended.code
    assert code == 0
    assert f"duplus {name}" in capsys.readouterr().out.partition("example")[2]


def test_help_lists_each_sub_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


def test_unknown_sub_command_is_told_with_the_valid_ones(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["docter"])
    assert ended.value.code == 2
    assert "'doctor'" in capsys.readouterr().err


def test_version_is_told(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("duplus 0")


def test_our_error_goes_to_stderr_with_exit_code_one(monkeypatch, capsys):
    def fail():
        raise HostError("no nnU-Net")

    monkeypatch.setattr(doctor, "examine", fail)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == "error: no nnU-Net\n"
