import csv
from dataclasses import replace

from PIL import Image

from duplus_nnunet.model_report.blocks import Section
from duplus_nnunet.model_report.figure_files import write_figures

from .reports import make_chart, make_table, make_viewer


def test_each_block_becomes_its_files(tmp_path):
    files = write_figures(tmp_path / "new", [Section("a", "A", [make_chart(), make_table(), make_viewer()])])
    assert {file.name for file in files} == {"loss.png", "loss.svg", "loss.csv", "cases.csv", "switch.png"}
    assert all(file.stat().st_size > 0 for file in files)
    with Image.open(tmp_path / "new" / "loss.png") as picture:
        assert picture.size == (800, 600)


def test_numbers_are_written_in_full(tmp_path):
    write_figures(tmp_path, [Section("a", "A", [make_table(rows=3)])])
    rows = list(csv.reader((tmp_path / "cases.csv").read_text().splitlines()))
    assert rows[0] == ["case", "Dice"]
    assert float(rows[3][1]) == 2 / 7


def test_blocks_of_one_name_do_not_replace_each_other(tmp_path):
    files = write_figures(tmp_path, [Section("a", "A", [make_table(rows=1), make_table(rows=2)])])
    assert [file.name for file in files] == ["cases.csv", "cases_2.csv"]


def test_a_name_never_leaves_the_folder(tmp_path):
    [file] = write_figures(tmp_path / "figures", [Section("a", "A", [replace(make_table(), name="../../etc/x")])])
    assert file.parent == tmp_path / "figures"
    assert file.is_file()
