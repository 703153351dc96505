"""What goes wrong is said on a page without a command: there is something to do in the app, or
somebody to ask. On the command line the same error names the command.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from source_tree import SOURCES, inside, tree
from waiting import wait_for

from imgalign.errors import (
    DatabaseError,
    ImgalignError,
    InputError,
    StorageFullError,
    StoreError,
)
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.originals import ImageFolder
from imgalign.preferences.store import Store
from ui import fit_form, messages, monitor
from ui.api.responses import error_response
from ui.builds import Builds
from ui.form_notes import for_page
from ui.links import NO_DATABASE, NO_SPACE, said
from ui.run_queue import RunQueue
from ui.runs import Runs

COMMAND = re.compile(
    r"imgalign (?!or )[a-z]{2,}\b(?! did)|(?<![\w-])--[a-z]|[Tt]erminal\b(?! snr)|Ctrl-C"
)
"""What only somebody with a terminal can do something with."""
NO_PAGE = (
    *("imgalign.cli", "imgalign.demo", "imgalign.evaluate", "imgalign.feedback", "imgalign.loop"),
    *("imgalign.report", "imgalign.storybook.train", "imgalign.testing"),
)
"""Packages of commands that no page calls."""
FOR_WHO_STARTS_IT = {
    "ui.api.login: --host x: without accounts the app listens on this machine only": "as it starts",
    "imgalign.prompts: prompt: expected --prompt TEXT or --prompts FILE": "`imgalign generate`",
}
"""Errors that nobody sees on a page, by their beginnings, and why."""


def errors() -> Iterator[tuple[str, str]]:
    """The module and the text, with x for what is put in, of each error that is made."""
    for module in SOURCES:
        if any(inside(module, (each,)) for each in NO_PAGE):
            continue
        constants = {
            target.id: node.value
            for node in tree(module).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
                for each in node.args:
                    yield module, text_of(each, constants)


def text_of(node: ast.AST, constants: dict[str, ast.expr]) -> str:
    """A text as it is written, with x for what is put in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(each, constants) for each in node.values)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value, constants)
    if isinstance(node, ast.Name) and node.id in constants:
        return text_of(constants[node.id], {})
    if isinstance(node, ast.BinOp):
        return text_of(node.left, constants) + text_of(node.right, constants)
    return "x"


def test_no_error_that_a_page_may_show_names_a_command() -> None:
    found = list(errors())
    assert len(found) > 500
    assert any(COMMAND.search(text) for _, text in found)
    wrong = [
        f"{module}: {said(InputError(text))}"
        for module, text in found
        if COMMAND.search(said(InputError(text)))
    ]
    assert [each for each in wrong if not each.startswith(tuple(FOR_WHO_STARTS_IT))] == []


def damaged_image(store: Store, tmp_path: Path) -> None:
    folder = ImageFolder(tmp_path / "other")
    (tmp_path / "other" / "00").mkdir(parents=True)
    (tmp_path / "other" / "00" / f"{'0' * 64}.png").write_bytes(b"x")
    folder.checked("0" * 64)


CAUSES: dict[str, tuple[Callable[[Store, Path], object], str, str]] = {
    "an account that there is none of": (
        lambda store, _: Accounts(store.database).disable("Zoe"),
        "see `imgalign accounts list`",
        "the People page has them all",
    ),
    "a damaged image": (
        damaged_image,
        "restore the file, and see `imgalign store check`",
        "ask whoever started the app to restore it, and to check the store",
    ),
    "no rankings": (
        lambda *_: fail(
            "data: expected rankings, got 2 skipped; rank images with imgalign ui first"
        ),
        "with imgalign ui first",
        "rank images on Rank first",
    ),
    "all weights": (
        lambda *_: fail(
            "a: has no adapter; make a model of it (imgalign export a --format merged)"
        ),
        "imgalign export a --format merged",
        "make a model of it (ask whoever started the app)",
    ),
}
"""What goes wrong, what the command line says of it, and what a page says."""


def fail(message: str) -> None:
    raise InputError(message)


def by_event(error: ImgalignError) -> str:
    with pytest.raises(gr.Error) as told:
        messages.shown(lambda: raising(error))
    return str(told.value.message)


def by_warning(error: ImgalignError, monkeypatch: pytest.MonkeyPatch) -> str:
    told: list[str] = []
    monkeypatch.setattr("ui.messages.gr.Warning", lambda text, duration: told.append(text))
    assert not messages.done(lambda: raising(error))
    return told[0]


def by_held_run(error: ImgalignError, tmp_path: Path) -> str:
    queue = RunQueue(Runs(tmp_path / "runs"))
    queue.runs.folder.mkdir()
    waiting = {"name": "a", "form": None, "app": "x", "held": str(error)}
    queue.file.write_text(json.dumps([waiting]))
    return str(monitor.view(queue.runs, None, queue)["runs"][0]["waits"]["held"])


def by_build(error: ImgalignError) -> str:
    builds = Builds()
    key = builds.begin("it", lambda _: raising(error))

    def told() -> str:
        try:
            builds.build(key)
        except InputError as refused:
            return str(refused)
        return ""

    return str(wait_for(told))


def raising(error: ImgalignError) -> Any:
    raise error


@pytest.mark.parametrize("cause", CAUSES)
def test_each_way_to_a_page_says_what_to_do_there(
    cause: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do, on_terminal, on_page = CAUSES[cause]
    with pytest.raises(ImgalignError) as raised:
        do(store, tmp_path)
    error = raised.value
    assert on_terminal in str(error)
    answer = error_response(StoreError(str(error)), {"method": "GET", "path": "/"})
    ways = {
        "an event": by_event(error),
        "an event that goes on": by_warning(error, monkeypatch),
        "a request": bytes(answer.body).decode(),
        "the form of Train": re.sub("<[^>]+>", "", for_page(error)),
        "the form of Learn": re.sub("<[^>]+>", "", fit_form.problems(error, "")),
        "a run that waits": by_held_run(error, tmp_path),
        "a file to take home": by_build(error),
    }
    assert {way: text for way, text in ways.items() if on_page not in text} == {}
    assert {way: text for way, text in ways.items() if COMMAND.search(text)} == {}


@pytest.mark.parametrize(
    ("kind", "told"), [(DatabaseError, NO_DATABASE), (StorageFullError, NO_SPACE)]
)
def test_where_the_database_is_and_what_ails_it_is_for_the_log(
    kind: type[ImgalignError], told: str, caplog: pytest.LogCaptureFixture
):
    def fail() -> None:
        raise kind("/srv/imgalign.db: locked by 10.0.0.7")

    with pytest.raises(gr.Error) as refused:
        messages.shown(fail)
    assert refused.value.message == told
    assert caplog.messages == ["/srv/imgalign.db: locked by 10.0.0.7"]
