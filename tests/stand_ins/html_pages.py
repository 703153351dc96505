"""Readers of HTML pages, for what a test asks of them."""

from html.parser import HTMLParser
from pathlib import Path
from typing import TypeAlias

Attributes: TypeAlias = list[tuple[str, str | None]]


class Reader(HTMLParser):
    """Collects what a page would load, its headings, and checks that tags are closed."""

    VOID = frozenset({"meta", "img", "br", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.headings: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        for name in ("src", "href", "xlink:href", "action"):
            if address := values.get(name):
                self.loads.append(address)
        if tag == "img":
            self.images += 1
            assert values["alt"]

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(path: Path) -> tuple[str, Reader]:
    """The text of a page, and what it is made of."""
    text, reader = path.read_text(encoding="utf-8"), Reader()
    reader.feed(text)
    assert not reader.open
    return text, reader


class Commands(HTMLParser):
    """The text of every command, as a browser copies it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        if tag in ("code", "pre"):
            self.inside = True
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("code", "pre")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data
