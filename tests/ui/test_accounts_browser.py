"""A lead runs a project in a browser, and an annotator whom they invite judges in another: a link,
a second project that is opened, a judgement of it, and the end of the account."""

import json
from typing import Any

import pytest
from rank_page import press
from submissions import judge
from waited import expect

from imgalign.preferences.accounts import Accounts
from imgalign.preferences.openings import set_open
from imgalign.preferences.store import Store

PASSWORD = "four odd green words"
NEWER = "another few blue words"

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


def log_in(page: Any, address: str, name: str) -> None:
    page.goto(f"{address}/enter")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator(".rk-tile").first.wait_for()


def test_a_lead_invites_an_annotator_opens_a_comparison_and_ends_the_account(
    page: Any, chromium: Any, address: str, store: Store, add_items: Any
):
    add_items(1)
    add_items(2, project="default-compare", num_images=2)
    people = Accounts(store.database)
    people.add("Ida", PASSWORD, role="admin", group="default")
    people.add("Lu", PASSWORD, role="lead", group="default")
    log_in(page, address, "Lu")
    page.goto(f"{address}/people")
    page.locator("#accounts").get_by_text("Ida").wait_for()
    assert page.get_by_role("button", name="Disable: Ida").count() == 0
    page.get_by_role("button", name="Invite somebody").click()
    page.get_by_role("button", name="Make a link").click()
    link = page.locator("#invite-link textarea")
    page.wait_for_function("field => field.value.startsWith('http')", arg=link.element_handle())
    assert link.input_value().startswith(f"{address}/join#")

    context = chromium.new_context()
    other = context.new_page()
    other.set_default_timeout(60_000)
    other.goto(link.input_value())
    other.get_by_label("Name").fill("Zoe")
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Make my account").click()
    other.locator(".rk-tile").nth(3).wait_for()
    assert other.get_by_label("Project").is_hidden()  # the comparison is not open yet
    assert other.locator("header.top nav").count() == 0
    assert other.request.get(f"{address}/people").status == 403

    page.locator("#people-project input").click()
    page.get_by_role("option", name="default-compare").click()
    box = page.get_by_label("Open to annotators")
    page.wait_for_function("box => !box.checked", arg=box.element_handle())
    box.check()
    page.get_by_text("Annotators may rank it now").wait_for()
    other.reload()
    other.get_by_label("Project").select_option("default-compare")
    other.locator(".rk[data-quick]").wait_for()
    press(other, "1")
    other.locator(".rk-count", has_text="1 of 2").wait_for()
    (vote,) = store.rankings()
    assert (vote.annotator, vote.project) == ("zoe", "default-compare")

    page.reload()
    page.get_by_role("button", name="Disable: Zoe").click()
    page.get_by_role("button", name="Enable: Zoe").wait_for()
    press(other, "1")
    other.get_by_role("heading", name="Log in").wait_for()
    assert len(list(store.rankings())) == 1
    context.close()


def test_where_no_project_is_open_an_annotator_is_told_so_until_one_is_opened(
    page: Any, address: str, store: Store, add_items: Any
):
    add_items(1)
    people = Accounts(store.database)
    people.add("Ida", PASSWORD, role="admin", group="default")
    people.add("Zoe", PASSWORD, role="annotator", group="default")
    log_in(page, address, "Zoe")
    set_open(store.database, "default", False, by=None)
    page.reload()
    page.get_by_text("No project is open to you now. One that is opened comes").wait_for()
    assert page.get_by_text("This name cannot be used").count() == 0
    set_open(store.database, "default", True, by=None)
    page.locator(".rk-tile").first.wait_for()
    assert page.locator(".rk-alert").is_hidden()


def test_who_forgot_a_password_chooses_another_by_a_link_of_a_lead(
    page: Any, chromium: Any, address: str, store: Store, add_items: Any
):
    add_items(1)
    people = Accounts(store.database)
    people.add("Ida", PASSWORD, role="admin", group="default")
    people.add("Lu", PASSWORD, role="lead", group="default")
    people.add("Zoe", PASSWORD, role="annotator", group="default")
    log_in(page, address, "Lu")
    page.goto(f"{address}/people")
    page.get_by_role("button", name="Reset password: Zoe").wait_for()
    assert page.get_by_role("button", name="Reset password: Ida").count() == 0
    assert page.locator("#reset-link").count() == 0
    page.get_by_role("button", name="Reset password: Zoe").click()
    page.get_by_text("Reset link for zoe").wait_for()
    field = page.locator("#reset-link textarea")
    page.wait_for_function("field => field.value.startsWith('http')", arg=field.element_handle())
    link = field.input_value()
    assert link.startswith(f"{address}/reset#")

    context = chromium.new_context()
    other = context.new_page()
    other.set_default_timeout(60_000)
    other.goto(f"{address}/enter")
    other.get_by_text("Ask a lead or an admin for a reset link").wait_for()
    other.goto(link)
    expect(other.get_by_label("Name")).to_have_value("Zoe")
    other.get_by_label("Password").fill(NEWER)
    other.get_by_role("button", name="Change my password").click()
    other.locator(".rk-tile").first.wait_for()
    other.locator("header.top .who a").click()  # her name leads to her own password
    other.get_by_role("heading", name="Change your password").wait_for()
    expect(other.get_by_label("Name")).to_have_value("Zoe")
    other.get_by_label("Old password").fill("wrong")
    other.get_by_label("New password").fill(PASSWORD)
    other.get_by_role("button", name="Change my password").click()
    other.get_by_role("alert").get_by_text("old password: not that of the account").wait_for()
    other.get_by_label("Old password").fill(NEWER)
    other.get_by_role("button", name="Change my password").click()
    other.locator(".rk-tile").first.wait_for()
    other.goto(link)
    other.get_by_role("alert").get_by_text("used, too old or not whole").wait_for()
    assert people.login("Zoe", PASSWORD)
    context.close()


FOR_ADMINS = (
    *("Start training", "Fit", "New run", "Stop and save", "Resume", "Copy with changes"),
    *("Delete …", "Delete for good", "Earlier", "Later", "Start now", "Take out of line"),
)


def refuse_what_is_for_admins(page: Any) -> None:
    """Neither a button of admins, nor a word that sends somebody to one."""
    for name in FOR_ADMINS:
        assert not any(
            each.is_visible() for each in page.get_by_role("button", name=name, exact=True).all()
        ), name
    for said in ("press Fit", "Pick a recipe", "go on with Resume", "Align with it", "Ctrl-C"):
        assert not any(each.is_visible() for each in page.get_by_text(said).all()), said


def test_a_lead_sees_runs_and_an_admin_changes_roles(
    page: Any, address: str, store: Store, add_items: Any, settings: Any
):
    add_items(1)
    people = Accounts(store.database)
    people.add("Ida", PASSWORD, role="admin", group="default")
    people.add("Lu", PASSWORD, role="lead", group="default")
    log_in(page, address, "Lu")
    page.goto(f"{address}/train")
    page.get_by_text("Admins start, stop and delete runs").wait_for()
    assert page.get_by_role("heading", name="New run").is_hidden()
    page.get_by_text("An admin starts one.").wait_for()
    refuse_what_is_for_admins(page)
    page.goto(f"{address}/learn")
    page.get_by_text("Admins fit reward models").wait_for()
    page.get_by_text("There are no rankings to learn from yet").wait_for()
    refuse_what_is_for_admins(page)
    store.submit(judge(store.next_item("Lu"), "Lu"))
    page.get_by_text("An admin fits the first one").wait_for()
    refuse_what_is_for_admins(page)
    run = settings.runs / "done"
    (run / "step-000006").mkdir(parents=True)
    (run / "step-000006" / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    (run / "config.yaml").write_text("{}")
    status = {"state": "stopped", "pid": 1, "step": 6, "total": 9, "message": ""}
    (run / "status.json").write_text(json.dumps(status))
    page.goto(f"{address}/train")
    page.get_by_text("an admin can resume it").wait_for()
    refuse_what_is_for_admins(page)
    page.goto(f"{address}/candidates")
    page.get_by_role("radio", name="Images").wait_for()
    assert page.get_by_role("radio", name="Texts").is_hidden()
    refuse_what_is_for_admins(page)
    page.goto(f"{address}/train")
    assert page.get_by_text("for admins; ask one of them").count() == 0
    page.context.clear_cookies()
    log_in(page, address, "Ida")
    page.goto(f"{address}/people")
    page.get_by_role("button", name="Make annotator: Lu").click()
    page.get_by_role("button", name="Make lead: Lu").wait_for()
    page.get_by_role("button", name="Make lead: Ida").click()
    page.get_by_text("the last admin, without whom nobody could invite").wait_for()
    assert [(each.name, each.role) for each in people.all()] == [
        ("Ida", "admin"),
        ("Lu", "annotator"),
    ]
    button = page.get_by_role("button", name="Make lead: Ida").element_handle()
    page.wait_for_function("button => !button.disabled || !button.isConnected", arg=button)
    expect(page.get_by_role("button", name="Make lead: Ida")).to_be_enabled()
