"""Addresses of the app's pages as others link to them: relative, for the prefix of a proxy.

And messages of commands as pages say them: where they name a command, its page.
"""

import re
from html import escape
from urllib.parse import urlencode

ON_PAGES = (
    (re.compile(r"with imgalign ui first"), "on Rank first"),
    (re.compile(r"with 'imgalign reward train'"), "on Learn"),
    (re.compile(r"'imgalign reward train' writes one"), "fit one on Learn"),
    (
        re.compile(r"name the images folder of the export"),
        "send a zip with the images, as 'All rankings, with images' writes it",
    ),
)
"""What messages for a terminal tell to do, and how that is done from the app."""
CHECKPOINT = "checkpoint"
"""What a link to the Generate page calls the one to be chosen."""
STRENGTH = "strength"
"""What it calls how strongly that is applied, where that is not 1."""
PAGES = {"Rank": "./", "Learn": "learn"}
"""Those that messages send to."""


def rank_link(project: str, *, only: str | None) -> str:
    """The Rank page on a project; empty where the app was started to rank `only` another."""
    return f"./?{urlencode({'project': project})}" if only in (None, project) else ""


def generate_link(checkpoint: str, *, strength: float = 1.0) -> str:
    """The Generate page with a checkpoint chosen, "run/step-000040", at this strength."""
    asked = {CHECKPOINT: checkpoint} | ({} if strength == 1 else {STRENGTH: str(strength)})
    return f"generate?{urlencode(asked, safe='/')}"


def in_the_app(message: str) -> str:
    """A message for a terminal, with pages of the app in place of commands."""
    for command, page in ON_PAGES:
        message = command.sub(page, message)
    return message


def linked(message: str) -> str:
    """The same as HTML, with links to the pages that it names."""
    html = escape(in_the_app(message))
    for name, address in PAGES.items():
        html = re.sub(rf"\bon {name}\b", f'<a href="{address}">on {name}</a>', html)
    return html
