"""Addresses of the app's pages as others link to them: relative, for the prefix of a proxy.

And messages of commands as pages say them: where they name a command, its page.
"""

import logging
import re
from html import escape
from urllib.parse import urlencode

from imgalign.errors import DatabaseError, ImgalignError, StorageFullError

log = logging.getLogger(__name__)

NO_SPACE = "the disk of the server is full: this was not saved; what was acknowledged is safe"
NO_DATABASE = "the server cannot read or save this now: try again; its log says why"
"""What is said of a database that is out of order: what is known of it names files and servers."""
ASK = "ask whoever started the app"
ON_PAGES = tuple(
    (re.compile(command), page)
    for command, page in (
        ("with imgalign ui first", "on Rank first"),
        ("with 'imgalign reward train'", "on Learn"),
        ("'imgalign reward train' writes one", "fit one on Learn"),
        (
            "name the images folder of the export",
            "send a zip with the images, as 'All rankings, with images' writes it",
        ),
        ("choose them with --judged-by (?:people|ai), or let", "let"),
        (", or the rewrites by --max-new-tokens", ""),
        (r"go on with --resume (policy\.\w+=\d+)", r"start a copy with \1"),
        (r"(?:resume|go on) with --resume\b|resume to continue\b", "go on with Resume"),
        ("start one without --resume", "start a new one"),
        ("use --format", "take it for"),
        (
            r"use algorithm\.name=\w+, which learns from likes and all-bad verdicts too",
            "take the recipe “My likes and dislikes”, which learns from these",
        ),
        (", with --model", ""),
        ("name it with --model", ASK),
        (": imgalign generate --adapter .+, imgalign evaluate [^;]+", ""),
        ("see `imgalign accounts list`", "the People page has them all"),
        ("make the first by `imgalign accounts add [^`]+`", f"{ASK} to make the first"),
        (
            "restore the file, and see `imgalign store check`",
            f"{ASK} to restore it, and to check the store",
        ),
        ("restore the images folder", f"{ASK} to restore it"),
        ("see `imgalign store check`", f"{ASK} to check the store"),
        ("or let `imgalign candidates --create` make one", f"or {ASK}"),
        (
            "import it by 'imgalign data import' as the owner of the database",
            f"{ASK} to import it",
        ),
        (r"\(imgalign export [^)]+\)", f"({ASK})"),
        ("by imgalign export RUN --format merged", f"({ASK})"),
        (": imgalign export ADAPTER .+ --out FOLDER,", f" ({ASK}),"),
        ("(?:with|by) [`']imgalign [^`']+[`']", f"({ASK})"),
    )
)
"""What messages for a terminal tell to do, and how or by whom that is done by those who have the
app alone. The last takes every command that is not named before it."""
CHECKPOINT = "checkpoint"
"""What a link to the Generate page calls the one to be chosen."""
STRENGTH = "strength"
"""What it calls how strongly that is applied, where that is not 1."""
PAGES = {"Rank": "./", "Learn": "learn", "Train": "train"}
"""Those that messages send to."""


def rank_link(project: str, *, only: str | None) -> str:
    """The Rank page on a project; empty where the app was started to rank `only` another."""
    return f"./?{urlencode({'project': project})}" if only in (None, project) else ""


def generate_link(checkpoint: str, *, strength: float = 1.0) -> str:
    """The Generate page with a checkpoint chosen, "run/step-000040", at this strength."""
    asked = {CHECKPOINT: checkpoint} | ({} if strength == 1 else {STRENGTH: str(strength)})
    return f"generate?{urlencode(asked, safe='/')}"


def in_the_app(message: str) -> str:
    """A message for a terminal, with pages of the app and people in place of commands."""
    for command, page in ON_PAGES:
        message = command.sub(page, message)
    return message


def said(error: ImgalignError) -> str:
    """An error as every page says it; the log gets what is for those who run the server."""
    if isinstance(error, DatabaseError | StorageFullError):
        log.error("%s", error)
        return NO_SPACE if isinstance(error, StorageFullError) else NO_DATABASE
    return in_the_app(str(error))


def linked(message: str) -> str:
    """The same as HTML, with links to the pages that it names."""
    html = escape(in_the_app(message))
    for name, address in PAGES.items():
        html = re.sub(rf"\bon {name}\b", f'<a href="{address}">on {name}</a>', html)
    return html
