"""The pages of the reference are what the code gives, and their examples are read by the real readers."""

import argparse
import ast
import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Literal

import pytest

import duplus_nnunet
from duplus_nnunet.data.case_table import read_case_table
from duplus_nnunet.data.composing.spec import read_spec
from duplus_nnunet.inference.jobs import FIELDS, read_jobs
from duplus_nnunet.prompt_registry.registry_file import load_registry_file
from duplus_nnunet.settings import Settings, parse_settings
from duplus_nnunet.survival.records.schema import read_schema, read_schemas

from .pages import DOCS, read_example


@pytest.fixture(scope="module")
def script():
    """The script that writes the generated parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for name in [name for name in sys.modules if name.partition(".")[0] == "generate"]:
            del sys.modules[name]


PAGES = [
    "index.md",
    "how-to/cluster.md",
    *(f"reference/{name}.md" for name in ("api", "commands", "errors", "outputs", "registry", "settings")),
]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_what_the_code_gives(script, page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert script.fill(text) == text, f"docs/{page} differs from the code. Run `make reference` and commit the page."


def test_a_change_of_the_code_is_noticed(script, monkeypatch):
    monkeypatch.setitem(script.WRITERS, "settings", lambda _: "other text")
    page = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    assert "other text" in script.fill(page)


def test_commands_do_not_depend_on_the_terminal(script, monkeypatch):
    before = script.WRITERS["commands"]("")
    monkeypatch.setenv("COLUMNS", "40")
    assert script.WRITERS["commands"]("") == before


def test_an_option_has_its_value_default_and_meaning(script):
    from generate.commands import write_groups

    parser = argparse.ArgumentParser("duplus try")
    parser.add_argument("case", nargs="*", metavar="CASE", help="cases to try")
    parser.add_argument("-n", "--number", type=int, default=3, metavar="N", help="how often")
    parser.add_argument("--kind", choices=("a", "b"), required=True)
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    parser.add_argument("--percent", default=5, help="share in %% (default: %(default)s)")
    assert "\n".join(write_groups(parser)).splitlines() == [
        "Arguments:",
        "- `[CASE ...]`: cases to try",
        "Options:",
        "- `-n N`, `--number N`: how often; default: 3",
        "- `--kind a|b`: required",
        "- `--percent PERCENT`: share in % (default: 5)",
    ]


def test_indented_lines_of_a_help_stay_as_they_are(script):
    from generate.commands import write_help

    text = "A sentence <here>.\n\nexamples:\n  one\n\nmore:\n  two\n\nThe end."
    block = "```text\nexamples:\n  one\n\nmore:\n  two\n```"
    assert write_help(text) == f"A sentence &lt;here>.\n\n{block}\n\nThe end."


def test_each_setting_is_on_the_page(script):
    page = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    for name, value in Settings().to_dict().items():
        names = value if isinstance(value, dict) else [name]
        assert [each for each in names if f"| `{each}` |" not in page] == []


def test_a_key_without_a_meaning_is_refused(script):
    from generate.forms import list_keys

    @dataclasses.dataclass
    class Form:
        """A form.

        Attributes:
            known: Something.
        """

        known: Literal["a", "b"] = "a"
        unknown: int = 0

    with pytest.raises(ValueError, match="'unknown'"):
        list(list_keys(Form))


def test_example_of_settings_is_valid():
    page = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    plans = json.loads(re.search(r"```json\n(.*?)```", page, flags=re.DOTALL)[1])
    settings = parse_settings(plans["duplus"]["settings"])
    assert (settings.epochs, settings.loss.reduction, settings.survival.lora_epochs) == (500, "sqrt", 0)


def _write_example(folder: Path, name: str) -> Path:
    file = folder / name
    file.write_text(read_example("registry.md", name), encoding="utf-8")
    return file


def test_example_of_a_registry_file_is_valid(tmp_path):
    file = load_registry_file(_write_example(tmp_path, "prompts.yaml"))
    assert file.targets["left kidney"].partner == "right kidney"
    assert {name: target.missing for name, target in file.targets.items()} == {
        "liver": "not annotated", "left kidney": "not annotated", "right kidney": "not annotated", "spleen": "absent",
    }  # fmt: skip


def test_example_of_a_specification_is_valid(tmp_path):
    spec = read_spec(_write_example(tmp_path, "compose.yaml"))
    assert spec.patients.shared == [[60, 61]]


def test_example_of_a_clinical_schema_is_valid(tmp_path):
    schema = read_schema(_write_example(tmp_path, "clinical.yaml"))
    assert list(schema.covariates) == ["age", "sex", "grade"]


def test_example_of_a_schema_of_several_endpoints_is_valid(tmp_path):
    schemas = read_schemas(_write_example(tmp_path, "endpoints.yaml"))
    assert {name: schema.event.column for name, schema in schemas.items()} == {
        "death": "Death",
        "distant metastasis": "Distant",
    }


def test_example_of_a_table_of_jobs_is_valid(tmp_path):
    file = _write_example(tmp_path, "jobs.csv")
    jobs = read_jobs(file, ".nii.gz")
    assert file.read_text().splitlines()[0] == ",".join(FIELDS)
    assert [job.targets for job in jobs] == [("liver", "spleen"), ()]
    assert jobs[1].prompts == ("A magnetic resonance imaging of the portal vein",)


def test_example_of_a_case_table_is_valid(tmp_path):
    _write_example(tmp_path, "duplus_cases.json")
    table = read_case_table(tmp_path)
    assert table is not None
    assert table.find("AbdomenCT_001").present == ("liver",)


def _list_texts() -> str:
    """Return all texts in the source code, parts that vary as a line break."""
    texts = []
    for file in Path(duplus_nnunet.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "\n" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_messages_on_the_page_are_those_of_the_code():
    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    parts = [
        part.strip() for quoted in re.findall(r"^> (.+)$", page, flags=re.MULTILINE) for part in quoted.split("...")
    ]
    texts = _list_texts()
    assert len(parts) > 12
    assert [part for part in parts if part not in texts] == []
