"""Blocks of documentation are found, and their commands are expanded as a shell does."""

import os

import pytest

from ..documentation_blocks import Block, expand_commands, list_pages, read_blocks


def expand(tmp_path, *texts):
    blocks = [Block("page.md", "bash", text) for text in texts]
    return list(expand_commands(blocks, {"HOME": "/home/somebody"}, tmp_path / "record"))


def test_quotes_variables_and_remarks(tmp_path):
    text = 'export MODEL=$HOME/model\nduplus predict -m $MODEL --targets "left kidney"   # a remark\n'
    assert expand(tmp_path, text) == [[["duplus", "predict", "-m", "/home/somebody/model", "--targets", "left kidney"]]]


def test_lines_that_go_on_and_loops(tmp_path):
    text = "for fold in 0 1; do\n    train $fold \\\n        -tr DuPLUSTrainer\ndone\n"
    assert expand(tmp_path, text) == [[["train", "0", "-tr", "DuPLUSTrainer"], ["train", "1", "-tr", "DuPLUSTrainer"]]]


def test_a_variable_lasts_until_the_end_of_the_page(tmp_path):
    assert expand(tmp_path, "export A=b\n", "echoes $A\n") == [[], [["echoes", "b"]]]


def test_programs_are_not_run(tmp_path):
    assert expand(tmp_path, f"mkdir {tmp_path}/new\n") == [[["mkdir", f"{tmp_path}/new"]]]
    assert os.listdir(tmp_path) == ["record"]


@pytest.mark.parametrize("page", ["README.md", "docs/get-started/predict.md"])
def test_pages_have_commands(page):
    assert page in list_pages()
    assert {"bash", "python"} <= {block.language for block in read_blocks(page)}
