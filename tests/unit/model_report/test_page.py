import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from duplus_nnunet.errors import DataError
from duplus_nnunet.model_report.blocks import Paragraph, Section, Table
from duplus_nnunet.model_report.page import UNKNOWN, Report, format_cell, make_page, write_page

from .reports import NASTY, make_case, make_chart, make_report, make_table, make_viewer


class Reader(HTMLParser):
    """Collects the elements of a page and their texts."""

    def __init__(self):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(report):
    reader = Reader()
    reader.feed(make_page(report)[0])
    return reader


def test_names_that_are_markup_are_shown_as_text():
    case = make_case(title=NASTY, targets=(NASTY,))
    table = Table(NASTY, NASTY, (NASTY,), [(NASTY,)])
    chart = replace(make_chart(), title=NASTY, caption=NASTY, description=NASTY, numbers=[{NASTY: NASTY}])
    viewer = replace(make_viewer(case), title=NASTY, caption=NASTY)
    report = replace(make_report(Paragraph(NASTY), table, chart, viewer), title=NASTY, summary=NASTY)
    reader = read(report)
    assert [attributes.get("type") for attributes in reader.find("script")] == ["application/json", None]
    assert ("h1", NASTY) in [(tag, "".join(text for own, text in reader.texts if own == tag)) for tag in ("h1",)]
    assert NASTY in [
        attributes["alt"] for attributes in reader.find("img") if attributes["src"].startswith("data:image/svg")
    ]


def test_nothing_is_loaded_from_outside():
    page = make_page(make_report())[0]
    reader = read(make_report())
    policy = next(attributes["content"] for attributes in reader.find("meta") if "http-equiv" in attributes)
    sources = [attributes.get(key) for _, attributes in reader.elements for key in ("src", "href") if key in attributes]
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert policy.startswith("default-src 'none'; ")
    assert not re.search(r"@import|url\(", page.partition("<style>")[2].partition("</style>")[0])


def test_no_element_has_a_style_or_a_script_of_its_own():
    reader = read(make_report())
    assert not [
        key for _, attributes in reader.elements for key in attributes if key == "style" or key.startswith("on")
    ]


def test_every_control_has_a_label_and_every_picture_a_description():
    reader = read(make_report())
    assert all(attributes["alt"] for attributes in reader.find("img"))
    labelled = {attributes["for"] for attributes in reader.find("label") if "for" in attributes}
    assert {attributes["id"] for attributes in reader.find("input") if attributes["type"] == "range"} == labelled
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_contents_lead_to_each_section():
    reader = read(make_report())
    assert {attributes["href"] for attributes in reader.find("a")} == {"#main", "#section-all"}
    assert "section-all" in [attributes["id"] for attributes in reader.find("section")]


def test_rows_beyond_the_first_ones_are_folded():
    reader = read(make_report(make_table(rows=30, shown=20)))
    rows = [index for index, (tag, _) in enumerate(reader.elements) if tag == "tr"]
    fold = next(index for index, (tag, _) in enumerate(reader.elements) if tag == "details")
    assert (sum(row < fold for row in rows), sum(row > fold for row in rows)) == (21, 11)


def test_a_report_without_viewers_says_nothing_of_images():
    page, notes = make_page(make_report(Paragraph("Nothing.")))
    assert notes == []
    assert "data-viewer" not in page.partition("<body>")[2].partition("<script>")[0]


def make_big_case(seed):
    image = np.random.default_rng(seed).normal(50, 30, (40, 200, 190)).astype(np.float32)
    masks = [replace(mask, prediction=image > 60, truth=image > 70) for mask in make_case().masks]
    return replace(make_case(), image=image, masks=masks)


def test_big_images_are_shown_coarsely_and_the_page_says_so():
    report = make_report(make_viewer(make_big_case(0)))
    page, notes = make_page(report, most_bytes=700_000)
    assert len(page.encode()) <= 700_000
    assert len(notes) == 1
    assert notes[0] in page


def test_a_page_that_cannot_be_small_is_written_and_says_its_size():
    page, notes = make_page(make_report(make_viewer()), most_bytes=1000)
    assert len(notes) == 2
    assert notes[1] in page


@pytest.mark.parametrize(
    ("cell", "text"),
    [(None, UNKNOWN), (float("nan"), UNKNOWN), (0.912345, "0.9123"), (3, "3"), (123456.7, "123,457"), ("a", "a"),
     (float("inf"), "inf")],
)  # fmt: skip
def test_cells(cell, text):
    assert format_cell(cell) == text


@pytest.mark.parametrize(
    ("column", "texts"),
    [([0.85, 0.913, None], ["0.850", "0.913", UNKNOWN]), ([1.0, 0.5], ["1.0", "0.5"]),
     ([0.85, 0.12345], ["0.85", "0.1235"]), ([2.5, 0.25], ["2.5", "0.25"])],
)  # fmt: skip
def test_scores_of_a_column_have_the_same_digits(column, texts):
    table = Table("scores", "Scores", ("Dice",), [(cell,) for cell in column])
    page, _ = make_page(Report("Report", "", [Section("scores", "Scores", [table])]))
    shown = re.findall(r"<td[^>]*>\s*(.*?)\s*</td>", page)
    assert shown == texts


def test_the_same_report_is_the_same_file(tmp_path):
    for name in ("one.html", "two.html"):
        write_page(tmp_path / name, make_report())
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError):
        write_page(tmp_path / "file" / "report.html", make_report(Paragraph("Text.")))
