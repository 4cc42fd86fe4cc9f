"""Reads the Markdown pages of the repository: links, headings, examples and tables."""

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    file
    for file in (REPOSITORY / "README.md", *DOCS.rglob("*.md"))
    if "_build" not in file.relative_to(REPOSITORY).parts
)
_FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2[`~]* *$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^()\s>]*(?:\([^()\s]*\)[^()\s>]*)?)>?(?: \"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", flags=re.MULTILINE)
_EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```\w+\n(.*?)```", flags=re.DOTALL)


def list_links(text: str) -> list[str]:
    """List the targets of links and pictures, without those in blocks of code and in code within a line."""
    prose = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", _FENCE.sub("", text))
    return [target for target in _LINK.findall(prose) if not re.match(r"[a-z]+:", target)]


def list_anchors(text: str) -> set[str]:
    """List the anchors of a page's headings, as GitHub makes them."""
    anchors: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.casefold()).replace(" ", "-")
        number = anchors.get(slug, 0)
        anchors[slug] = number + 1
        names.add(f"{slug}-{number}" if number else slug)
    return names


def find_broken_links(page: Path) -> Iterator[str]:
    """Yield each relative link of a page whose file or heading does not exist."""
    text = page.read_text(encoding="utf-8")
    for link in list_links(text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{link}: there is no {target}"
        elif anchor and target.suffix == ".md" and anchor not in list_anchors(target.read_text(encoding="utf-8")):
            yield f"{link}: there is no such heading in {target.name}"


def read_example(page: str, name: str) -> str:
    """Return the example of a file on a page of the reference, which `<!-- example: NAME -->` stands before."""
    return dict(_EXAMPLE.findall((DOCS / "reference" / page).read_text(encoding="utf-8")))[name]


def read_columns(heading: str) -> list[str]:
    """Return the first column of the table below a heading of the page on output files."""
    text = (DOCS / "reference" / "outputs.md").read_text(encoding="utf-8")
    section = text.partition(f"\n### {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)
