"""`duplus doctor` reports each fault with its remedy; its exit code is 1 only for faults that matter."""

import importlib
import json
import re
import sys

import pytest

from duplus_nnunet import _autoload, cli, doctor, plugin
from duplus_nnunet.commands import doctor as command
from duplus_nnunet.doctor import Diagnosis
from duplus_nnunet.errors import HostError
from duplus_nnunet.host import version
from duplus_nnunet.host.interface import NEEDS
from duplus_nnunet.host.probe import ProbeResult
from duplus_nnunet.networks import acceleration

FINE = Diagnosis("versions", "python", "3.11")
FAULT = Diagnosis("folders", "nnUNet_raw", "not set", ok=False, remedy="export it")
OFFERED = Diagnosis("probe", "nnunetv2.a.b", "called: (c)")
DIFFERENT = Diagnosis("probe", "nnunetv2.a.d", "called: missing", ok=False, remedy="pip install another")
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
    assert "nnUNet_raw" in text.splitlines()[-1]


def test_what_is_not_needed_is_absent_not_wrong():
    text = command.to_text([ABSENT])
    assert "absent  text encoder" in text
    assert "text encoder" not in text.splitlines()[-1]


def test_names_of_nnunet_that_are_as_needed_are_counted_and_others_are_shown():
    text = command.to_text([OFFERED, OFFERED, DIFFERENT])
    assert "2 of 3" in text
    assert OFFERED.name not in text
    assert "WRONG   nnunetv2.a.d: called: missing\n          -> pip install another" in text


def test_json_has_a_row_for_each_name_of_nnunet():
    report = command.to_json([OFFERED, DIFFERENT])
    assert {name: row["ok"] for name, row in report["probe"].items()} == {OFFERED.name: True, DIFFERENT.name: False}


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


def test_live_hook_is_reported_with_its_interpreter():
    finding = next(doctor.check_hook())
    assert (finding.ok, finding.found) == (True, f"live in {sys.executable}")


def test_switched_off_hook_is_reported_with_the_variable(monkeypatch):
    monkeypatch.setattr(_autoload, "is_live", lambda: False)
    monkeypatch.setenv("DUPLUS_AUTOLOAD", "0")
    finding = next(doctor.check_hook())
    assert finding.is_fault
    assert finding.remedy == "unset DUPLUS_AUTOLOAD"


def test_hook_that_was_not_read_is_reported_with_the_way_to_reinstall(monkeypatch):
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

    monkeypatch.setattr(version, "require_host", fail)
    finding = by_name(doctor.check_versions())["nnunetv2"]
    assert finding.is_fault
    assert version.TESTED_HOSTS in finding.remedy


def test_untested_nnunet_that_passes_the_probe_is_fine_and_reported_as_untested(monkeypatch, capfd):
    monkeypatch.setattr(version, "read_host_version", lambda: "2.9.0")
    monkeypatch.delenv(version.PROBED_VARIABLE, raising=False)
    finding = by_name(doctor.check_versions())["nnunetv2"]
    assert finding.ok
    assert finding.found.startswith("2.9.0, ")
    assert version.TESTED_HOSTS in finding.found
    assert capfd.readouterr().err == ""


def test_probe_has_a_row_for_each_name_of_nnunet_and_all_are_as_needed():
    rows = list(doctor.check_probe())
    assert [row.name for row in rows] == [need.dotted_name for need in NEEDS]
    assert all(row.ok for row in rows)


def test_name_of_nnunet_that_differs_is_a_fault_with_a_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "probe_host", lambda: [ProbeResult(NEEDS[0], "(folder)", "lacks 'class_name'")])
    (finding,) = doctor.check_probe()
    assert finding.is_fault
    assert (finding.name, finding.found) == (NEEDS[0].dotted_name, "replaced: lacks 'class_name'")
    assert version.TESTED_HOSTS in finding.remedy


def test_probe_of_a_missing_nnunet_is_not_a_second_fault(monkeypatch):
    def fail():
        raise HostError("none")

    monkeypatch.setattr(version, "read_host_version", fail)
    assert not any(finding.is_fault for finding in doctor.check_probe())


def test_missing_distribution_is_a_fault_with_the_line_to_install_it(monkeypatch):
    monkeypatch.setattr(doctor, "DISTRIBUTIONS", ("no-such-distribution",))
    assert by_name(doctor.check_versions())["no-such-distribution"].remedy == "pip install no-such-distribution"


def test_change_that_was_not_made_is_a_fault(monkeypatch):
    importlib.import_module(plugin.LOOKUP.module)  # the first import makes the change
    monkeypatch.setitem(plugin.outcomes, plugin.LOOKUP.dotted_name, "AttributeError: gone")
    monkeypatch.setattr(plugin, "CHANGES", (plugin.LOOKUP,))
    finding = next(doctor.check_changes())
    assert finding.is_fault
    assert finding.found == "AttributeError: gone"


def test_class_that_cannot_be_imported_is_a_fault(monkeypatch):
    monkeypatch.setattr(plugin, "CLASSES", {"nnunetv2.preprocessing": {"DuPLUSNothing": "duplus_nnunet.errors"}})
    monkeypatch.setattr(doctor, "_look_up", lambda folder, name: getattr(doctor, name))
    assert "AttributeError" in next(doctor.check_classes()).found


def test_folders_that_exist_are_fine(folders):
    assert all(finding.ok for finding in doctor.check_folders())


@pytest.mark.parametrize("name", doctor.FOLDERS)
def test_folder_that_is_not_set_is_a_fault(folders, monkeypatch, name):
    monkeypatch.delenv(name)
    finding = by_name(doctor.check_folders())[name]
    assert finding.is_fault
    assert finding.remedy.startswith(f"export {name}=")


def test_folder_that_nnunet_can_create_is_fine(folders, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(folders / "new" / "results"))
    assert by_name(doctor.check_folders())["nnUNet_results"].ok


def test_raw_folder_must_exist(folders, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(folders / "new"))
    assert by_name(doctor.check_folders())["nnUNet_raw"].is_fault


def test_file_in_the_place_of_a_folder_is_a_fault(folders, monkeypatch):
    (folders / "file").touch()
    monkeypatch.setenv("nnUNet_results", str(folders / "file"))
    assert by_name(doctor.check_folders())["nnUNet_results"].is_fault


def test_folder_that_cannot_be_written_is_a_fault_where_nnunet_writes(folders, monkeypatch):
    monkeypatch.setattr(doctor, "_is_writable", lambda folder: False)
    found = by_name(doctor.check_folders())
    assert [found[name].ok for name in doctor.FOLDERS] == [True, False, False]


def test_shipped_embeddings_are_complete():
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
def test_kernels_of_a_gpu_are_checked_but_not_needed(monkeypatch, built):
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


def test_unknown_sub_command_is_refused_with_the_valid_ones(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["docter"])
    assert ended.value.code == 2
    assert "'doctor'" in capsys.readouterr().err


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("duplus 0")


def test_our_error_goes_to_stderr_with_exit_code_one(monkeypatch, capsys):
    def fail():
        raise HostError("no nnU-Net")

    monkeypatch.setattr(doctor, "examine", fail)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == "error: no nnU-Net\n"


def test_dicom_is_not_needed_and_its_versions_are_named(monkeypatch):
    found = by_name(doctor.check_dicom())["readers and writers"]
    assert found.ok
    assert re.fullmatch(r"pydicom [\d.]+, highdicom [\d.]+", found.found)

    def fail(name):
        raise HostError(f"{name} is not there")

    monkeypatch.setattr("duplus_nnunet.dicom.extra.require", fail)
    missing = by_name(doctor.check_dicom())["readers and writers"]
    assert (missing.ok, missing.needed) == (False, False)
    assert "duplus-nnunet[dicom]" in missing.remedy
