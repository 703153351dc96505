"""The rows of each sheet of `app_screenshots.py`, and how a browser gets there.

A row is one state of a page, in one of the folders of `app_folders.py`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from app_folders import LIKES, PAIRS, PASSWORD, SCORED, TEXTS, Folder
from app_walk import keys_of

from imgalign.storybook.scenes import evaluation_prompts
from ui.api.login import COOKIE

PAGES = ("candidates", "rank", "people", "learn", "train", "generate", "results")
OVER_RANK = {"zoom": "Space", "votes": "h", "guidelines": "g"}
"""What is opened over the Rank page, by its key."""
RANKED_ALSO = {"pairs": PAIRS, "likes": LIKES, "texts": TEXTS}
"""Sheets of what else is judged on the Rank page, and the projects of it."""
COME = {"train": ".mo-samples img", "results": ".duel", "candidates": ".ba-set img"}
"""What is waited for, on pages where it comes late."""

DRAWN = "() => !document.querySelector('.progress-text, .ct-wait')"
"""All events are through."""
LONG_THEN_SHORT = (400, 30, 45)
"""Prompts of batches that are asked for at once."""
NOTHING_PLACED = (
    "() => [...document.querySelectorAll('.rk-tile .rk-rank')].every((r) => !r.innerText)"
)
"""The next set is there."""


@dataclass(frozen=True)
class Row:
    """One state of a page."""

    name: str
    folder: str
    """Which of `app_folders.folders`."""
    show: Callable[[Any, str, Folder], None]
    """Brings a page there, from the address of the app and its folder."""
    at: str = ""
    """What the picture begins with, as a selector; the top of the page if empty."""


def visit(page: Any, address: str, name: str) -> None:
    """Open a page of the app."""
    page.goto(f"{address}/{'' if name == 'rank' else name}")
    page.wait_for_function(f"() => document.title.endsWith('{name.title()} - imgalign')")


def show_page(page: Any, address: str, folder: Folder, *, name: str, full: bool) -> None:
    """A page, with what is to be seen on it."""
    visit(page, address, name)
    if name == "rank":
        show_rank(page, full=full)
    if name == "generate" and full:
        page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
        page.get_by_label("Prompts").fill("\n".join(evaluation_prompts(2, seed=5)))
        page.get_by_role("button", name="Generate", exact=True).click()
        page.locator(".co-cell img").nth(15).wait_for()
    if full and name in COME:
        page.locator(COME[name]).first.wait_for()
    page.wait_for_function(DRAWN)


def press(page: Any, keys: Iterable[str]) -> None:
    """Press keys as somebody does who has seen what is judged."""
    for key in keys:
        page.wait_for_function("() => !document.querySelector('.rk-tile[aria-busy=true]')")
        page.keyboard.press(key)


def name_oneself(page: Any) -> None:
    """Begin to rank as Bea."""
    page.get_by_label("Your name or initials").fill("Bea")
    page.keyboard.press("Enter")


def show_rank(page: Any, key: str | None = None, *, full: bool = True) -> None:
    """Rank as Bea, with some places given; then what a key opens."""
    name_oneself(page)
    page.locator(".rk[data-state=ranking], .rk[data-state=empty]").first.wait_for()
    if not full:
        return
    page.locator(".rk-guide[open]").wait_for()
    page.keyboard.press("Escape")
    if key == "h":  # something to be listed
        press(page, keys_of(((2,), (0,), (1,), (3,)), 4))
        page.locator(".rk-count", has_text=re.compile("^[1-9]")).wait_for()
        page.wait_for_function(NOTHING_PLACED)
    press(page, keys_of(((2,), (0,)), 4)[:-1])
    page.locator(".rk-tile .rk-rank", has_text="2nd").wait_for()
    if key is not None:
        page.keyboard.press(key)
        page.locator("dialog[open]").wait_for()


def show_over_rank(page: Any, address: str, folder: Folder, *, key: str) -> None:
    """What opens over the Rank page."""
    visit(page, address, "rank")
    show_rank(page, key)


def show_project(page: Any, address: str, folder: Folder, *, project: str) -> None:
    """Rank in a project."""
    page.goto(f"{address}/?project={project}")
    name_oneself(page)
    page.locator(".rk[data-state=ranking] .rk-tile").first.wait_for()


def show_door(page: Any, address: str, folder: Folder, *, name: str, token: str = "") -> None:
    """Where one gets in, with the token of a link behind it."""
    page.goto(f"{address}/{name}" + (f"#{folder.tokens[token]}" if token else ""))
    page.get_by_label("Name").wait_for()
    if name == "reset":
        page.wait_for_function("() => document.querySelector('#name').value")


def show_refused(page: Any, address: str, folder: Folder, *, name: str, token: str) -> None:
    """A link that leads nowhere any more."""
    page.goto(f"{address}/{name}#{folder.tokens[token]}")
    page.get_by_role("alert").get_by_text(re.compile(".")).wait_for()


def show_wrong_password(page: Any, address: str, folder: Folder) -> None:
    """A password that is not that of the account."""
    show_door(page, address, folder, name="enter")
    page.get_by_label("Name").fill("Zoe")
    page.get_by_label("Password").fill(PASSWORD.upper())
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").get_by_text(re.compile(".")).wait_for()


def log_in(page: Any, address: str, folder: Folder, who: str) -> None:
    """Have the session of an account."""
    cookie = {"name": COOKIE, "value": folder.tokens[who], "url": address}
    page.context.add_cookies([cookie])


def show_password(page: Any, address: str, folder: Folder) -> None:
    """Where one's own password is changed."""
    log_in(page, address, folder, "lead")
    page.goto(f"{address}/password")
    page.wait_for_function("() => document.querySelector('#name').value")


def show_people(page: Any, address: str, folder: Folder, *, who: str, invite: bool = False) -> None:
    """The People page of a lead or an admin; with a link that invites somebody."""
    log_in(page, address, folder, who)
    visit(page, address, "people")
    page.locator("#accounts table").wait_for()
    if invite:
        page.get_by_role("button", name="Invite somebody").click()
        page.get_by_role("button", name="Make a link").click()
        page.wait_for_function(
            "() => document.querySelector('#invite-link textarea')?.value.startsWith('http')"
        )


def show_ended(page: Any, address: str, folder: Folder, *, run: str, state: str) -> None:
    """A run that did not finish, on the Train page; one that was killed is stopped, not failed."""
    visit(page, address, "train")
    page.locator(f"[data-run='{run}']").click()
    page.locator(f".mo-run[data-state={state}] h3", has_text=run).wait_for()
    page.wait_for_function(DRAWN)


def show_waiting(page: Any, address: str, folder: Folder) -> None:
    """The first of two batches that wait while a long one is made; they are asked for once."""
    visit(page, address, "candidates")
    page.locator(".ba-chip").first.wait_for()
    waits = page.locator(".ba-chip", has_text=": waits")
    for number, count in enumerate(LONG_THEN_SHORT if waits.count() < 2 else ()):
        prompts = page.get_by_label("Prompts").last
        prompts.fill("\n".join(evaluation_prompts(count, seed=number)))
        prompts.blur()
        page.get_by_text(f"{count} prompts, ").wait_for()
        page.get_by_role("button", name="Make them").click()
        page.locator(".ba-chip", has_text=f"{count} prompts").first.wait_for()
    page.locator(".ba-chip", has_text=f"{LONG_THEN_SHORT[1]} prompts").first.click()
    page.get_by_text("before it is made, in about").wait_for()


def show_lost_page(page: Any, address: str, folder: Folder) -> None:
    """A page whose server does not answer any more."""
    show_page(page, address, folder, name="train", full=True)
    page.wait_for_timeout(2500)
    page.context.set_offline(True)
    page.locator("#alive").wait_for()


def show_lost_vote(page: Any, address: str, folder: Folder) -> None:
    """A judgement that could not be sent."""
    visit(page, address, "rank")
    show_rank(page)
    page.locator(".rk-tile img").last.wait_for()
    page.wait_for_timeout(2500)
    page.context.set_offline(True)
    press(page, ("2", "4", "Enter"))
    page.locator(".rk-alert").wait_for()


def _page(name: str) -> Sequence[Row]:
    rows = [
        Row("empty", "empty", partial(show_page, name=name, full=False)),
        Row("full", "worked", partial(show_page, name=name, full=True)),
    ]
    if name == "candidates":
        rows.append(Row("waiting", "waiting", show_waiting, at=".ba-list"))
    if name == "results":
        rows.append(Row("three makers", "several", partial(show_page, name=name, full=True)))
        whole = partial(show_page, name=name, full=True)
        rows.append(Row("their ratings", "several", whole, at="#results .results"))
    return rows


def _door(name: str, token: str = "") -> Sequence[Row]:
    return [Row(name, "guarded", partial(show_door, name=name, token=token))]


def _refused(name: str, token: str) -> Row:
    return Row(token, "guarded", partial(show_refused, name=name, token=token))


def _people(who: str, what: str, at: str = "", *, invite: bool = False) -> Row:
    return Row(f"{who}: {what}", "guarded", partial(show_people, who=who, invite=invite), at=at)


SHEETS: Mapping[str, Sequence[Row]] = {
    **{name: _page(name) for name in PAGES},
    **{
        name: [Row("full", "worked", partial(show_over_rank, key=key))]
        for name, key in OVER_RANK.items()
    },
    **{
        name: [Row(name, "several", partial(show_project, project=project))]
        for name, project in RANKED_ALSO.items()
    },
    "enter": _door("enter"),
    "join": _door("join", "invitation"),
    "reset": _door("reset", "reset"),
    "password": [Row("password", "guarded", show_password)],
    "refused": [
        _refused("join", "old invitation"),
        _refused("reset", "ended reset"),
        Row("wrong password", "guarded", show_wrong_password),
    ],
    "accounts": [
        _people("lead", "an invitation", invite=True),
        _people("lead", "gold and attention items", "#gold"),
        _people("lead", "accounts", "#accounts"),
        _people("admin", "accounts", "#accounts"),
    ],
    "failed": [
        Row("killed", "failed", partial(show_ended, run="killed", state="stopped")),
        Row("no reward", "failed", partial(show_ended, run=SCORED, state="failed")),
    ],
    "lost": [
        Row("a page", "worked", show_lost_page),
        Row("a vote", "worked", show_lost_vote),
    ],
}
"""The rows of each sheet, by its name."""
