"""Settings of Sphinx, which builds the site from the Markdown in this folder: `make docs`.

Nothing is loaded from the network, at build time or by the pages. Navigation follows the lists of links on index.md, so
that the order of pages is written once and the start page can be read in the repository too. Links to files of the
repository outside of docs/ lead to DUPLUS_REPOSITORY_URL (such as https://example.org/duplus/blob/main), or, without
that variable, to the checkout beside the built site.
"""

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

project = "DuPLUS for nnU-Net"
author = "the DuPLUS for nnU-Net contributors"
copyright = author
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "generate"]
nitpicky = True

myst_heading_anchors = 4
# GitHub draws these; the site shows their source.
myst_fence_as_directive = ["mermaid"]

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "monokai"

_DOCS = Path(__file__).resolve().parent
_REPOSITORY = _DOCS.parent
_PART = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", flags=re.MULTILINE)
_PAGE = re.compile(r"^- \[[^\]]*\]\(([\w/.-]+)\.md\)", flags=re.MULTILINE)


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """Append hidden tables of contents to the start page: one for each of its lists of links."""
    if name != app.config.root_doc:
        return
    for title, text in _PART.findall(source[0]):
        pages = _PAGE.findall(text)
        if pages:
            source[0] += "\n".join(("", "```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```", ""))


class LinksToRepository(SphinxTransform):
    """Turns relative links to files and folders that are no pages of the site into links to the repository.

    Links to what does not exist are left to MyST, which warns of them.
    """

    default_priority = 100

    def apply(self, **_: Any) -> None:
        """Replace the links of one page."""
        folder = Path(self.env.doc2path(self.env.docname)).parent
        for kind in (addnodes.download_reference, addnodes.pending_xref):
            for link in list(self.document.findall(kind)):
                path, _, anchor = str(link.get("reftarget", "")).partition("#")
                if link.get("refdomain") == "doc":  # MyST writes pages outside of docs/ as absolute paths
                    path, anchor = (f"{path}.md" if path.startswith("/") else ""), link.get("reftargetid") or ""
                target = (folder / path).resolve()
                if path and target.exists() and target.is_relative_to(_REPOSITORY):
                    self._replace(link, target, anchor)

    def _replace(self, link: nodes.Element, target: Path, anchor: str) -> None:
        url = os.environ.get("DUPLUS_REPOSITORY_URL", "").rstrip("/")
        site = Path(self.app.outdir, self.app.builder.get_target_uri(self.env.docname)).parent
        inside = target.relative_to(_REPOSITORY).as_posix()
        shown = f"{url}/{inside}" if url else Path(os.path.relpath(target, site)).as_posix()
        reference = nodes.reference("", "", refuri=f"{shown}#{anchor}" if anchor else shown)
        reference += nodes.Text(link.astext())
        link.replace_self(reference)


class Mermaid(Directive):
    """Shows the source of a diagram, since drawing it needs a program from elsewhere."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the source as a block of text."""
        text = "\n".join(self.content)
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what this file adds to Sphinx."""
    app.connect("source-read", add_navigation)
    app.add_transform(LinksToRepository)
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
