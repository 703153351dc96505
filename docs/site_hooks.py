"""What mkdocs does with this repository beside reading docs/; mkdocs.yml names this file.

Documents elsewhere join the site. Links are written for the repository: they are turned to the
pages of the site, and what they name that is no page, such as a source file, becomes plain text.
"""

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
JOINED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    f"{RESULTS}/README.md": "results.md",
    **{f"{RESULTS}/{path.name}": f"results/{path.name}" for path in (ROOT / RESULTS).glob("*.png")},
}
"""Files outside docs/, by their path in the repository, and where they are on the site."""

LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]+)(#[^)\s]*)?\)")
LIST = re.compile(r"(?:[-*]|\d+\.) ")
FENCE = "```"


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the files outside docs/."""
    from mkdocs.structure.files import File

    for source, page in JOINED.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """The text of a page, as mkdocs reads it."""
    place = page.file.src_uri
    return with_links_of_the_site(with_blank_lines(markdown), place)


def with_links_of_the_site(markdown: str, page: str) -> str:
    """Turn links within the repository to the site; `page` is where the text is on it."""
    own = next((source for source, joined in JOINED.items() if joined == page), f"docs/{page}")

    def turned(match: re.Match[str]) -> str:
        label, path, anchor = match[1], match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(own), path))
        there = JOINED.get(target) or target.removeprefix("docs/")
        is_page = target in JOINED or (target.startswith("docs/") and (ROOT / target).is_file())
        if ":" in path or not (ROOT / target).exists():
            return match[0]  # another host's; or nothing at all, which mkdocs refuses
        if not is_page:
            return label.lstrip("!")[1:-1]
        return f"{label}({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(turned, markdown)


def with_blank_lines(markdown: str) -> str:
    """Set lists, tables and code apart from the paragraph before, as Python-Markdown needs it."""
    lines: list[str] = []
    in_code = False
    for line in markdown.split("\n"):
        before = lines[-1] if lines else ""
        kind = kind_of(line)
        if not in_code and before.strip() and kind and kind_of(before) != kind:
            inside_a_list = kind != FENCE and before.startswith(" ")
            if not inside_a_list:
                lines.append("")
        lines.append(line)
        in_code ^= line.startswith(FENCE)
    return "\n".join(lines)


def kind_of(line: str) -> str:
    """What a line begins that is no paragraph: "list", "|" of a table, or a fence of code."""
    if LIST.match(line):
        return "list"
    return next((start for start in ("|", FENCE) if line.startswith(start)), "")
