"""`duplus completion`: a shell is really asked, and nothing heavy is imported for an answer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from duplus_nnunet import cli
from duplus_nnunet.commands.completion import SHELLS, list_datasets

HEAVY = ("torch", "numpy", "nnunetv2", "transformers", "matplotlib", "SimpleITK", "pydantic")
# Asks bash's own completion function what may follow on a line, as the key Tab does; one completion a line.
ASK = """
eval "$(duplus completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9 COMP_KEY=9
_python_argcomplete duplus "" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def model(tmp_path):
    """Write the plans of a model with three targets and two contexts."""
    names = ("liver", "left kidney", "lung")
    prompts = {"targets": [{"name": name} for name in names], "contexts": {"amos_ct": {}, "amos_mr": {}}}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "plans.json").write_text(json.dumps({"duplus": prompts}), encoding="utf-8")
    return tmp_path / "model"


def ask(line, folder, **variables):
    """Return what bash would offer behind a line, in a folder."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **variables}
    done = subprocess.run(
        [bash, "--norc", "-c", ASK, "bash", line], env=environment, cwd=folder, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return {word.strip() for word in done.stdout.splitlines() if word.strip()}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("duplus pr", {"predict", "prompts"}),
        ("duplus prompts sh", {"show"}),
        ("duplus adapt ", {"plan", "list", "show", "export", "merge", "-h", "--help"}),
        ("duplus evaluate --com", {"--compare"}),
        ("duplus predict --precision ", {"auto", "float32", "bfloat16"}),
        ("duplus predict --disable_", {"--disable_tta", "--disable_progress_bar"}),
        ("duplus predict -m model --targets l", {"liver", r"left\ kidney", "lung"}),
        ("duplus predict -m model --context a", {"amos_ct", "amos_mr"}),
        ("duplus predict -m missing --targets l", set()),
        ("duplus compose --spec com", {"compose.yaml"}),
    ],
)
def test_bash_completes_commands_options_choices_names_and_files(model, line, expected):
    (model.parent / "compose.yaml").touch()
    assert ask(line, model.parent) == expected


def test_bash_completes_the_datasets_in_the_folder_of_raw_datasets(tmp_path):
    for name in ("Dataset004_Hippocampus", "Dataset060_Sarcoma", "other"):
        (tmp_path / name).mkdir()
    found = ask("duplus plan-report Dataset0", tmp_path, nnUNet_raw=str(tmp_path))
    assert found == {"Dataset004_Hippocampus", "Dataset060_Sarcoma"}


def test_no_folder_of_raw_datasets_is_no_error(monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert list_datasets() == []


def test_parsers_and_completions_import_nothing_heavy():
    program = (
        "import sys; from duplus_nnunet import cli; import duplus_nnunet.commands.completion; "
        f"[cli.build_parser(name) for name in cli.COMMANDS]; print(*sorted(set(sys.modules) & set({HEAVY})))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_a_command_does_not_import_what_completes_it():
    program = (
        "import sys; from duplus_nnunet import cli; cli.build_parser('predict'); print('argcomplete' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("shell", SHELLS)
def test_lines_for_a_shell_name_the_command(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "duplus" in capsys.readouterr().out


def test_without_argcomplete_the_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete.shell_integration", None)
    assert cli.main(["completion", "bash"]) == 1
    assert "pip install argcomplete" in capsys.readouterr().err
