"""People and Results in a browser while others rank, while a drawing takes its time, and while
somebody is faster than the app: what is done goes to what is on the screen, nothing is lost, and
what is shown in the end is what was chosen last, as it is in the store.
"""

import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from provenances import provenance
from rank_page import wait_until
from submissions import judge, on_screen
from waited import expect, unfold

import ui.authority
import ui.pulse
from imgalign.errors import InputError
from imgalign.images import png
from imgalign.preferences.exclusions import all_exclusions
from imgalign.preferences.guidelines import guidelines_of, set_guidelines
from imgalign.preferences.openings import open_projects
from imgalign.preferences.people import people_of
from imgalign.preferences.store import Store
from ui.leaderboard import Asked
from ui.pages import results
from ui.pages.drawing import ANEW

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
PAGES = ("rank", "people", "results")  # others take their time to build
NAMES = {
    "alpha": ("Ann", "Amy", "Abe"),
    "beta": ("Bob", "Bea", "Ben"),
    "gamma": ("Gus", "Gia", "Guy"),
}


class Gate:
    """What takes as long as a test wants; open at first."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.waiting = 0

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait(self) -> None:
        self.waiting += not self._open.is_set()
        assert self._open.wait(60)


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Gate]]:
    """Before figures of a project are read, or results by a rating; "all": before any event."""
    found = {name: Gate() for name in (*NAMES, "elo", "all")}
    none = Gate()

    def people_late(store: Store, project: str) -> Any:
        found.get(project, none).wait()
        return people_of(store, project)

    shown, may_now = results.shown, ui.authority.may_now

    def shown_late(board: Any, asked: Asked) -> str:
        found.get(asked.method, none).wait()
        return shown(board, asked)

    def may_late(*given: Any) -> bool:
        found["all"].wait()
        return may_now(*given)

    monkeypatch.setattr("ui.pages.people.people_of", people_late)
    monkeypatch.setattr("ui.pages.results.shown", shown_late)
    monkeypatch.setattr("ui.authority.may_now", may_late)
    yield found
    for each in found.values():
        each.open()


def vote(store: Store, who: str, project: str, *, limit: int = 100) -> None:
    store.add_annotator(who)
    while limit and (item := store.next_item(who, project=project)) is not None:
        store.submit(judge(item, who, client_ms=2000))
        limit -= 1


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages look at the store all the time."""
    monkeypatch.setattr(ui.pulse, "STORE_SECONDS", 0.1)
    monkeypatch.setattr(ui.pulse, "TIMES_AT_REST", 0)
    monkeypatch.setattr(ui.pulse, "ANYWAY_SECONDS", math.inf)


@pytest.fixture
def three(gates: dict[str, Gate], store: Store, add_items: Any) -> None:
    """Three projects with people and guidelines of their own; before the app is started."""
    for project, names in NAMES.items():
        add_items(2, project=project, overlap=4, prompts=[f"{project} {n}" for n in range(2)])
        for who in names:
            vote(store, who, project)
        set_guidelines(store.database, project, f"Of {project}.")


def open_people(page: Any, address: str, project: str = "alpha") -> None:
    page.goto(f"{address}/people")
    page.locator("#people tbody tr").nth(2).wait_for()
    if project != "alpha":
        choose(page, project)
    page.get_by_role("button", name=f"Exclude {NAMES[project][0]}").wait_for()


def choose(page: Any, project: str) -> None:
    page.locator("#people-project input").click()
    page.get_by_role("option", name=project, exact=True).click()


def forms_wait(page: Any) -> bool:
    """Whether nobody can write into the forms, which would be replaced."""
    return bool(page.locator(".page > .later").evaluate("forms => forms.inert"))


def names_on(page: Any) -> list[str]:
    return [str(each) for each in page.locator("#people tbody th").all_inner_texts()]


def test_of_two_projects_chosen_in_a_row_the_last_is_shown_and_gets_what_is_done(
    page: Any, gates: dict[str, Gate], three: None, address: str, store: Store
) -> None:
    open_people(page, address, "gamma")
    unfold(page, "Guidelines")
    text = page.locator("#people-guidelines textarea")
    gates["alpha"].close()
    choose(page, "alpha")
    wait_until(page, lambda: gates["alpha"].waiting)
    choose(page, "beta")
    gates["alpha"].open()
    page.get_by_role("button", name="Exclude Bob").wait_for()
    expect(text).to_have_value("Of beta.")
    choose(page, "alpha")
    choose(page, "beta")
    choose(page, "alpha")
    page.get_by_role("button", name="Exclude Ann").wait_for()
    expect(page.locator("#people-project input")).to_have_value("alpha")
    expect(text).to_have_value("Of alpha.")
    page.get_by_role("button", name="Save").first.click()
    page.get_by_text("Annotators see them").wait_for()
    page.get_by_role("button", name="Exclude Ann").click()
    page.get_by_role("button", name="Include Ann").wait_for()
    found = [(each.project, each.annotator_id) for each in all_exclusions(store.database)]
    assert found == [("alpha", "ann")]
    assert guidelines_of(store.database, "beta") == "Of beta."


def test_while_another_project_loads_nothing_is_done_and_the_page_says_so(
    page: Any, gates: dict[str, Gate], three: None, address: str, store: Store
) -> None:
    open_people(page, address)
    unfold(page, "Guidelines")
    gates["beta"].close()
    choose(page, "beta")
    wait_until(page, lambda: gates["beta"].waiting)
    said = page.get_by_text("project 'beta' is still loading and nothing was done")
    page.get_by_role("button", name="Exclude Ann").click()
    expect(said).to_have_count(1)
    page.get_by_label("Open to annotators").click()
    expect(said).to_have_count(2)
    assert forms_wait(page)
    gates["beta"].open()
    page.get_by_role("button", name="Exclude Bob").wait_for()
    expect(page.locator("#people-guidelines textarea")).to_have_value("Of beta.")
    assert not forms_wait(page)
    assert all_exclusions(store.database) == []
    assert [guidelines_of(store.database, each) for each in NAMES] == [
        f"Of {each}." for each in NAMES
    ]
    assert open_projects(store.database, first="default") == {"default"}
    expect(page.get_by_label("Open to annotators")).not_to_be_checked()
    page.get_by_role("button", name="Exclude Bob").click()
    page.get_by_role("button", name="Include Bob").wait_for()


def test_each_of_three_presses_is_done_and_the_table_ends_as_the_store(
    page: Any, gates: dict[str, Gate], three: None, address: str, store: Store
) -> None:
    open_people(page, address)
    gates["all"].close()
    for who in NAMES["alpha"]:
        with page.expect_request("**/queue/join*"):
            page.get_by_role("button", name=f"Exclude {who}").click()
    gates["all"].open()
    for who in NAMES["alpha"]:
        page.get_by_role("button", name=f"Include {who}").wait_for()
    assert len(all_exclusions(store.database)) == 3
    gates["alpha"].close()  # what is drawn takes longer than what is done
    for who in NAMES["alpha"]:
        page.get_by_role("button", name=f"Include {who}").click()
    wait_until(page, lambda: all_exclusions(store.database) == [])
    gates["alpha"].open()
    for who in NAMES["alpha"]:
        page.get_by_role("button", name=f"Exclude {who}").wait_for()
    assert page.locator("#people button:disabled").count() == 0


def test_people_follows_the_votes_of_others_and_keeps_what_is_typed(
    page: Any,
    gates: dict[str, Gate],
    three: None,
    address: str,
    store: Store,
    often: None,
) -> None:
    open_people(page, address, "beta")
    unfold(page, "Guidelines")
    text = page.locator("#people-guidelines textarea")
    expect(text).to_have_value("Of beta.")
    text.fill("Half of")
    page.set_viewport_size({"width": 1280, "height": 500})
    row = page.get_by_role("button", name="Exclude Ben")
    row.focus()
    page.evaluate("scrollTo(0, 120)")
    vote(store, "Aaron", "beta")
    page.get_by_role("button", name="Exclude Aaron").wait_for()
    expect(page.locator("#people .team").first).to_contain_text("2 of 2 sets")
    expect(row).to_be_focused()
    assert page.evaluate("scrollY") == 120
    expect(text).to_have_value("Half of")
    expect(page.locator("#people-project input")).to_have_value("beta")
    page.reload()
    page.get_by_role("button", name="Exclude Aaron").wait_for()
    expect(page.locator("#people-project input")).to_have_value("beta")


def test_nobody_types_into_forms_that_the_first_drawing_fills(
    page: Any, gates: dict[str, Gate], three: None, address: str
) -> None:
    gates["all"].close()
    page.goto(f"{address}/people")
    wait_until(page, lambda: gates["all"].waiting)
    assert forms_wait(page)  # before the page knows which project it is
    gates["alpha"].close()
    gates["all"].open()
    wait_until(page, lambda: gates["alpha"].waiting)
    assert forms_wait(page)
    gates["alpha"].open()
    unfold(page, "Guidelines")
    expect(page.locator("#people-guidelines textarea")).to_have_value("Of alpha.")
    assert not forms_wait(page)


def test_forms_are_free_again_when_a_project_cannot_be_drawn(
    page: Any, three: None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = page.locator(".page > .later:not([inert])")
    open_people(page, address)
    expect(free).to_have_count(1)

    def fails(*given: Any, **named: Any) -> Any:
        raise InputError("the store cannot be read; try again")

    with monkeypatch.context() as patch:
        patch.setattr("ui.pages.people._figures", fails)
        choose(page, "beta")
        page.get_by_text("the store cannot be read").first.wait_for()
        expect(free).to_have_count(1)


def test_without_a_project_forms_stay_free_while_the_page_is_drawn(page: Any, address: str) -> None:
    page.goto(f"{address}/people")
    expect(page.locator(".page > .later:not([inert])")).to_have_count(1)
    fold = page.get_by_role("button", name="Invite somebody")
    fold.focus()
    drawn = "document.querySelector('#people [data-drawn]').dataset.drawn"
    first = page.evaluate(drawn)
    page.evaluate(ANEW)
    page.wait_for_function(f"first => {drawn} !== first", arg=first)
    expect(fold).to_be_focused()


def test_nothing_moves_below_a_hand(
    page: Any,
    gates: dict[str, Gate],
    three: None,
    address: str,
    store: Store,
    often: None,
) -> None:
    open_people(page, address)
    page.wait_for_function("() => document.querySelector('[data-pulse]')?.dataset.mark")
    page.get_by_role("button", name="Exclude Ann").hover()
    vote(store, "Aaron", "alpha")
    page.wait_for_function("() => document.querySelector('[data-pulse]').dataset.mark === ''")
    assert sorted(names_on(page)) == sorted(NAMES["alpha"])
    page.mouse.move(1, 1)
    page.get_by_role("button", name="Exclude Aaron").wait_for()


def compare(store: Store, project: str, count: int) -> None:
    """Pairs of a base's image and a checkpoint's, judged by one."""
    store.add_annotator("ann")
    for number in range(count):
        prompt = f"{project} {number} of {count}"
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (number, 90 * k, len(project)))),
                provenance(prompt=prompt, adapter=adapter, adapter_hash=adapter),
            )
            for k, adapter in enumerate((None, "runs/mine"))
        ]
        store.add_item(prompt, ids, source="test", project=project)
    while (item := store.next_item("ann", project=project)) is not None:
        order = on_screen(store, item, ((1,), (0,)), "ann")
        store.submit(judge(item, "ann", ranking=order))


def pick(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


@pytest.fixture
def compared(gates: dict[str, Gate], store: Store) -> None:
    compare(store, "cats", 3)
    compare(store, "dogs", 4)


def test_the_rating_that_was_chosen_last_is_the_one_that_is_shown(
    page: Any, gates: dict[str, Gate], compared: None, address: str
) -> None:
    page.goto(f"{address}/results")
    found = page.locator("#results")
    found.get_by_text("the log-odds that people prefer").wait_for()
    gates["elo"].close()
    pick(page, "Rating", "Elo")
    wait_until(page, lambda: gates["elo"].waiting)
    pick(page, "Rating", "Plackett-Luce")
    gates["elo"].open()
    found.get_by_text("with ties as a result of their own").wait_for()


def test_votes_between_the_first_drawing_and_the_first_look_at_the_store_are_shown(
    page: Any, compared: None, address: str, store: Store, often: None
) -> None:
    page.add_init_script(
        "const plain = setInterval;"
        "setInterval = (f, ms) => (ms === 2000 ? ((window.looks = f), 0) : plain(f, ms));"
    )
    page.goto(f"{address}/results")
    found = page.locator("#results")
    expect(found).to_contain_text("of 7 blind votes")
    compare(store, "cats", 5)
    page.evaluate("looks(); setInterval(looks, 2001);")
    expect(found).to_contain_text("of 12 blind votes")


def test_results_follow_the_votes_of_others_with_what_is_chosen(
    page: Any,
    compared: None,
    address: str,
    store: Store,
    often: None,
) -> None:
    page.goto(f"{address}/results")
    found = page.locator("#results")
    found.get_by_text("the log-odds that people prefer").wait_for()
    pick(page, "Project", "cats: 3 rankings")
    pick(page, "Rating", "Plackett-Luce")
    found.get_by_text("with ties as a result of their own").wait_for()
    page.mouse.move(1, 1)
    compare(store, "cats", 5)
    expect(found).to_contain_text("of 8 blind votes")
    expect(found).to_contain_text("with ties as a result of their own")
    page.reload()
    found.get_by_text("with ties as a result of their own").wait_for()
    expect(found).to_contain_text("of 8 blind votes")
    assert page.get_by_label("Rating", exact=True).input_value() == "Plackett-Luce"
    assert page.get_by_label("Project", exact=True).input_value() == "cats: 8 rankings"
