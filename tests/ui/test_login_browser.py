"""Claims: in a browser an invitation leads to ranking without a typed name, a session survives a
reload and ends when it is left, and what is wrong is said on the page."""

from typing import Any

import pytest
from rank_page import press, wait_until_seen
from waited import expect

from imgalign.errors import DatabaseError
from imgalign.preferences.accounts import Accounts
from ui.heading import PAGES as ALL

PASSWORD = "four odd green words"


@pytest.fixture
def people(store: Any, add_items: Any) -> Accounts:
    add_items(2)
    people = Accounts(store.database)
    people.add("Lea", PASSWORD, role="admin", group="default")
    return people


def fill(page: Any, name: str, password: str, button: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name=button).click()


def test_from_an_invitation_to_a_judgement_and_out_again(page: Any, address: str, people: Accounts):
    token = people.invite(role="annotator", group="default", by=None)
    page.goto(f"{address}/join#{token}")
    page.get_by_role("heading", name="Join").wait_for()
    fill(page, "lea", PASSWORD, "Make my account")
    page.get_by_role("alert").get_by_text("somebody else's; choose another").wait_for()
    fill(page, "Zoe", PASSWORD, "Make my account")
    page.locator(".rk-tile").first.wait_for()  # nobody typed a name
    expect(page.locator(".who b")).to_have_text("Zoe", use_inner_text=True)
    expect(page.locator(".rk-who")).to_be_hidden()
    assert page.get_by_role("heading", name="Before you start").is_hidden()
    press(page, "b Enter")
    page.locator(".rk-count", has_text="1 of 2").wait_for()
    page.reload()
    page.locator(".rk-count", has_text="1 of 2").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    page.goto(address)
    page.get_by_role("heading", name="Log in").wait_for()


def test_what_is_wrong_is_said_and_the_right_password_goes_on(
    page: Any, address: str, people: Accounts
):
    page.goto(f"{address}/train")
    page.get_by_role("heading", name="Log in").wait_for()
    fill(page, "Lea", "wrong", "Log in")
    page.get_by_role("alert").get_by_text("not those of an account").wait_for()
    fill(page, "lea", PASSWORD, "Log in")
    page.locator(".rk-tile").first.wait_for()
    page.goto(f"{address}/train")
    page.get_by_role("heading", name="New run").wait_for()


def test_every_page_names_whoever_is_logged_in_and_logs_them_out(
    page: Any, address: str, people: Accounts
):
    page.goto(f"{address}/enter")
    fill(page, "Lea", PASSWORD, "Log in")
    page.locator(".rk-tile").first.wait_for()
    for name in ALL:
        page.goto(f"{address}/{'' if name == 'rank' else name}")
        expect(page.locator("header.top .who b")).to_have_text("Lea", use_inner_text=True)
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Log out").click()
    assert page.request.get(f"{address}/api/account").json()["name"] == "Lea"
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    assert page.request.get(f"{address}/api/account").json()["name"] is None


def test_who_logs_out_in_another_tab_is_told_so_and_goes_on_after_a_new_login(
    page: Any, address: str, people: Accounts
):
    page.goto(f"{address}/enter")
    fill(page, "Lea", PASSWORD, "Log in")
    page.locator(".rk-tile").first.wait_for()
    page.goto(f"{address}/candidates")
    page.locator("#candidate-prompts textarea").fill("a fox, half")
    train = page.context.new_page()
    train.goto(f"{address}/train")
    train.get_by_role("heading", name="No runs yet").wait_for()
    page.request.post(f"{address}/api/logout")
    for tab in (page, train):
        alive = tab.locator("#alive")
        alive.get_by_text("You are logged out").wait_for()
        expect(alive).not_to_contain_text("restarted")
    train.locator(".mo-gone", has_text="You are logged out").wait_for()
    with page.expect_popup() as opened:
        page.locator("#alive").get_by_role("button", name="Log in").click()
    login = opened.value
    login.get_by_role("heading", name="Log in").wait_for()
    people.add("Zoe", PASSWORD, role="annotator", group="default")
    fill(login, "Zoe", PASSWORD, "Log in")
    page.locator("#alive").get_by_text("may not see this page").wait_for()
    login.request.post(f"{address}/api/logout")
    login.goto(f"{address}/enter")
    fill(login, "Lea", PASSWORD, "Log in")
    for tab in (page, train):
        tab.locator("#alive").wait_for(state="detached")
    expect(page.locator("#candidate-prompts textarea")).to_have_value("a fox, half")


def test_a_link_that_is_used_says_so_at_once_and_has_nothing_to_be_filled_in(
    page: Any, address: str, people: Accounts
):
    for place in ("join#nothing", "reset#nothing"):
        page.goto("about:blank")  # another token alone is no other page
        page.goto(f"{address}/{place}")
        page.get_by_role("alert").get_by_text("used, too old or not whole").wait_for()
        expect(page.get_by_role("textbox")).to_have_count(0)
        expect(page.get_by_role("button")).to_have_count(0)
        expect(page.get_by_role("link", name="Log in")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Log in").wait_for()
    expect(page.get_by_label("Name")).to_be_visible()


def test_a_link_that_could_not_be_asked_of_is_asked_of_again(
    page: Any, address: str, people: Accounts
):
    page.route("**/api/invitation", lambda route: route.abort())
    page.goto(f"{address}/join#{people.invite(role='annotator', group='default', by=None)}")
    page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    page.unroute("**/api/invitation")
    page.get_by_role("link", name="Try again").click()
    page.get_by_role("button", name="Make my account").wait_for()


def test_who_changes_no_password_after_all_gets_back(page: Any, address: str, people: Accounts):
    page.goto(f"{address}/enter")
    fill(page, "Lea", PASSWORD, "Log in")
    page.locator(".rk-tile").first.wait_for()
    page.locator("header.top .who a").click()
    page.get_by_role("link", name="Back, and keep the old one").click()
    page.locator(".rk-tile").first.wait_for()


def test_an_account_that_is_disabled_while_it_ranks_comes_to_the_login(
    page: Any, address: str, people: Accounts
):
    people.add("Zoe", PASSWORD, role="annotator", group="default")
    page.goto(address)
    fill(page, "Zoe", PASSWORD, "Log in")
    page.locator(".rk-tile").first.wait_for()
    wait_until_seen(page)  # with no account no image comes, and what is not seen is not judged
    people.disable("Zoe")
    press(page, "b Enter")
    page.get_by_role("heading", name="Log in").wait_for()


def test_a_page_that_meets_a_database_out_of_order_comes_by_itself_when_it_can_be_read(
    page: Any, address: str, people: Accounts, store: Any, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise DatabaseError(f"{store.database.name}: locked")

    page.goto(f"{address}/enter")
    fill(page, "Lea", PASSWORD, "Log in")
    page.locator(".rk-tile").first.wait_for()
    with monkeypatch.context() as broken:
        broken.setattr(Accounts, "of_session", fail)
        answer = page.goto(f"{address}/train")
        assert answer.status == 503
        page.get_by_role("heading", name="Out of order").wait_for()
        assert store.database.name not in page.content()
        with page.expect_response(f"{address}/train") as looked:  # it looks, and stays
            pass
        assert looked.value.status == 503
        expect(page.get_by_role("alert")).to_contain_text("continues by itself")
    page.get_by_role("heading", name="New run").wait_for()
