"""Relative links of README.md and of all pages in docs/ lead to files and headings that exist."""

import pytest

from .pages import PAGES, REPOSITORY, find_broken_links, list_anchors, list_links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(page):
    assert list(find_broken_links(page)) == []


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading\n[a](page.md#a-heading) [b](page.md#another) [c](none.md) [d](#a-heading) [e](#none)\n"
    )
    assert [text.partition(":")[0] for text in find_broken_links(page)] == ["page.md#another", "none.md", "#none"]


def test_code_and_addresses_are_no_relative_links():
    text = "`[a](b)` [c](https://example.org) ![d](e.png)\n```text\n[f](g)\n```\n[`h`](i.md)\n"
    assert list_links(text) == ["e.png", "i.md"]


def test_anchors_are_those_of_github():
    text = "# `duplus prompts draft`\n## nnU-Net's own, and ours\n## Twice\n## Twice\n```text\n# no heading\n```\n"
    assert list_anchors(text) == {"duplus-prompts-draft", "nnu-nets-own-and-ours", "twice", "twice-1"}
