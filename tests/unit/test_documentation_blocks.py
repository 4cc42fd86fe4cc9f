"""Blocks of documentation are found, and their commands are expanded as a shell does."""

import os
from pathlib import Path

import pytest

from duplus_nnunet.conversion.recipe import read_recipe
from duplus_nnunet.prompt_registry.registry_file import check_registry_file
from duplus_nnunet.survival.records.schema import read_schemas

from ..documentation_blocks import Block, expand_commands, list_pages, read_blocks, split_variables


def expand(tmp_path, *texts):
    blocks = [Block("page.md", "bash", text) for text in texts]
    return list(expand_commands(blocks, {"HOME": "/home/somebody"}, tmp_path / "record"))


def test_the_schema_of_several_endpoints_on_the_page_is_valid(tmp_path: Path) -> None:
    (block,) = (block for block in read_blocks("docs/how-to/prognosis-records.md") if block.language == "yaml")
    (tmp_path / "clinical.yaml").write_text(block.text)
    assert [*read_schemas(tmp_path / "clinical.yaml")] == ["death", "distant metastasis"]


def test_quotes_variables_and_remarks(tmp_path):
    text = 'export MODEL=$HOME/model\nduplus predict -m $MODEL --targets "left kidney"   # a remark\n'
    assert expand(tmp_path, text) == [[["duplus", "predict", "-m", "/home/somebody/model", "--targets", "left kidney"]]]


def test_lines_that_go_on_and_loops(tmp_path):
    text = "for fold in 0 1; do\n    train $fold \\\n        -tr DuPLUSTrainer\ndone\n"
    assert expand(tmp_path, text) == [[["train", "0", "-tr", "DuPLUSTrainer"], ["train", "1", "-tr", "DuPLUSTrainer"]]]


def test_a_variable_lasts_until_the_end_of_the_page(tmp_path):
    assert expand(tmp_path, "export A=b\n", "echoes $A\n") == [[], [["echoes", "b"]]]


def test_variables_for_a_program_come_before_its_words(tmp_path):
    (first, second) = expand(tmp_path, "DUPLUS_A='b c' train 1\ntrain A=1\n", "export DUPLUS_D=e OTHER=f\ntrain\n")
    assert [split_variables(words) for words in first + second] == [
        ({"DUPLUS_A": "b c"}, ["train", "1"]), ({}, ["train", "A=1"]), ({"DUPLUS_D": "e"}, ["train"]),
    ]  # fmt: skip


def test_programs_are_not_run(tmp_path):
    assert expand(tmp_path, f"mkdir {tmp_path}/new\n") == [[["mkdir", f"{tmp_path}/new"]]]
    assert os.listdir(tmp_path) == ["record"]


@pytest.mark.parametrize("page", ["README.md", "docs/get-started/predict.md"])
def test_pages_have_commands(page):
    assert page in list_pages()
    assert {"bash", "python"} <= {block.language for block in read_blocks(page)}


def test_registry_files_and_recipes_on_pages_are_accepted(tmp_path: Path) -> None:
    (registry,) = (block for block in read_blocks("docs/how-to/own-dataset.md") if block.language == "yaml")
    (recipe,) = (block for block in read_blocks("docs/how-to/convert.md") if block.language == "yaml")
    for block, name in ((registry, "prompts.yaml"), (recipe, "livers.yaml")):
        (tmp_path / name).write_text(block.text)
    assert check_registry_file(tmp_path / "prompts.yaml")[1] == ()
    assert read_recipe(tmp_path / "livers.yaml").dataset == "OurLivers"
