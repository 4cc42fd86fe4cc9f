"""The lowest supported nnU-Net finds our classes as the installed one does."""

import json
import os
import subprocess
import sys

import pytest

from duplus_nnunet import plugin
from duplus_nnunet.host.interface import NEEDS
from duplus_nnunet.host.version import LOWEST_HOST

LOWEST = "2.8.0"


@pytest.fixture(scope="module")
def lowest_install(wheel, make_installation):
    """An environment with the lowest supported nnU-Net, and everything else as here."""
    installation = make_installation("nnunetv2")
    install = [sys.executable, "-m", "pip", "--python", installation.python, "install", "--no-deps"]
    done = subprocess.run([*install, f"nnunetv2=={LOWEST}"], capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"nnunetv2 {LOWEST} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    subprocess.run([*install, wheel], check=True, capture_output=True, timeout=600)
    return installation


@pytest.mark.slow
def test_doctor_is_content_with_the_lowest_supported_nnunet(lowest_install, tmp_path):
    folders = {name: str(tmp_path) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    command = [lowest_install.python.parent / "duplus", "doctor", "--json"]
    done = subprocess.run(command, env=os.environ | folders, capture_output=True, text=True, timeout=600)
    report = json.loads(done.stdout)
    assert report["versions"]["nnunetv2"]["found"] == LOWEST
    assert set(report["classes"]) == {name for names in plugin.CLASSES.values() for name in names}
    assert set(report["changes"]) == {row.dotted_name for row in plugin.CHANGES}
    assert set(report["probe"]) == {need.dotted_name for need in NEEDS}
    assert (done.returncode, report["ok"]) == (0, True), done.stdout


def test_lowest_version_is_the_lowest_that_is_supported():
    assert ".".join(map(str, (*LOWEST_HOST, 0))) == LOWEST
