"""The People page without a browser: what is shown, and who may ask for it."""

import re
from typing import Any

import pytest
from served_app import built
from starlette.testclient import TestClient
from submissions import judge
from texts import add_texts

from imgalign.errors import InputError, StoreError
from imgalign.preferences.accounts import Account, Accounts
from imgalign.preferences.attention import add_attention, attention_items, withdraw
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.gold import gold_items, mark_gold
from imgalign.preferences.guidelines import set_guidelines
from imgalign.preferences.issued import item_named
from imgalign.preferences.progress import ProjectProgress
from imgalign.preferences.queue_order import queue_order_of, set_priorities, set_queue_order
from imgalign.preferences.records import COMPARISONS
from imgalign.preferences.store import Store
from ui.app import Settings
from ui.pages import accounts as account_page
from ui.pages import people
from ui.pages.drawing import ANEW
from ui.people_table import progress_shown
from ui.roles import may

HERE = "http://127.0.0.1:7860"
PASSWORD = "four odd green words"
SCRIPT = "<img src=x onerror=alert(1)>"


def rank_all(store: Store, who: str, **options: Any) -> None:
    store.add_annotator(who, **options)
    while (item := store.next_item(who)) is not None:
        store.submit(judge(item, who))


def test_without_anything_it_says_what_is_missing_and_where(store: Store, add_items: Any) -> None:
    nothing, *_ = people.tables(store, None)
    assert 'href="candidates"' in nothing
    add_items(1)
    unranked, gold, attention = people.tables(store, "default")
    assert "Nobody has judged anything in this project yet" in unranked
    assert 'href="./"' in unranked
    assert "No gold items yet" in gold
    assert "No attention items yet" in attention
    assert "nothing is queued there" in people.tables(store, SCRIPT)[0]
    assert "<img" not in people.tables(store, SCRIPT)[0]


def test_annotators_have_a_row_with_a_button_and_names_are_text(
    store: Store, add_items: Any
) -> None:
    item, _ = add_items(2)
    rank_all(store, "eve", name=SCRIPT)
    alone, *_ = people.tables(store, "default")
    assert SCRIPT not in alone
    assert "&lt;img src=x" in alone
    assert "No two annotators have ordered the same pair" in alone
    assert ">Gold<" not in alone
    rank_all(store, "bob")
    mark_gold(store, item, ((0,), (1, 2, 3)))
    exclude(store.database, "bob", project="default")
    shown, gold, _ = people.tables(store, "default")
    assert 'data-do="person_exclude" data-of="eve"' in shown
    assert 'data-do="person_include" data-of="bob"' in shown
    assert "excluded since" in shown
    assert ">Gold<" in shown
    assert "A &gt; B = C = D" in gold
    assert f'data-do="gold_remove" data-of="{item}"' in gold


def test_alpha_and_kappa_are_shown_with_intervals_and_how_to_read_them(
    store: Store, add_items: Any
) -> None:
    add_items(6)
    for who in ("ann", "bob"):  # in the random order of their own screens
        rank_all(store, who)
    shown, *_ = people.tables(store, "default")
    for name in ("Krippendorff's alpha", "Fleiss' kappa of better, worse and tie"):
        assert re.search(rf"<b>-?0\.\d\d</b> <small>-?\d\.\d\d to -?\d\.\d\d</small> {name}", shown)
    assert "1 is perfect agreement and 0 is chance" in shown
    assert "Of 36 pairs of 6 prompts" in shown


def test_the_progress_of_the_team_stands_above_the_annotators(store: Store, add_items: Any) -> None:
    item, _ = add_items(2)
    begun, *_ = people.tables(store, "default")
    assert "<b>0 of 2 sets</b> with all their rankings" in begun
    assert "None in the last 3 hours, so that the time left is unknown." in begun
    mark_gold(store, item, ((0,), (1, 2, 3)), overlap=9)
    rank_all(store, "ann")
    shown, *_ = people.tables(store, "default")
    assert shown.index("with all their rankings") < shown.index("Votes")
    assert "12 an hour in the last 3 hours." in shown


def test_a_lead_sees_how_many_sets_are_valued_where_what_tells_most_comes_first(
    store: Store, add_items: Any
) -> None:
    valued, *_ = add_items(3)
    assert "valued" not in people.tables(store, "default")[0]
    set_queue_order(store.database, "default", "informative")
    assert "0 of 3 sets valued: the oldest comes first" in people.tables(store, "default")[0]
    set_priorities(store.database, "default", {valued: 0.5})
    assert "1 of 3 sets valued: what tells most of these" in people.tables(store, "default")[0]


@pytest.mark.parametrize(
    ("left", "beyond", "recent", "per_hour", "said"),
    [
        (0, 0, 9, 3.0, ""),
        (41, 0, 33, 11.0, "41 rankings to come. 11 an hour in the last 3 hours: about 3.7 h left."),
        (1, 0, 5, 2.5, "1 ranking to come. 2.5 an hour in the last 3 hours: about 24 min left."),
        (
            1_200,
            1_200,
            3,
            3.0,
            "1,200 rankings to come. 1,200 of them need more annotators than have judged here: "
            "invite some. 3 an hour in the last 3 hours.",
        ),
        (
            3,
            1,
            0,
            0.0,
            "3 rankings to come. 1 of them needs more annotators than have judged here: invite "
            "some. None in the last 3 hours, so that the time left is unknown.",
        ),
    ],
)
def test_progress_in_words(left: int, beyond: int, recent: int, per_hour: float, said: str) -> None:
    found = ProjectProgress(
        items=60, complete=34, left=left, out_of_reach=beyond, recent=recent, per_hour=per_hour
    )
    whole = f"<p>{said}</p>" if said else ""
    shown = '<p class="team"><b>34 of 60 sets</b> with all their rankings</p>'
    assert progress_shown(found) == f'<div class="results people">{shown}{whole}</div>'


def test_a_gold_item_is_made_from_letters_and_removed_in_its_project(
    store: Store, add_items: Any
) -> None:
    (item,) = add_items(1)
    people.add_gold(store, item, "B > A", 5)
    (found,) = gold_items(store, "default")
    assert (found.expected, found.overlap) == (((1,), (0,), (2, 3)), 5)
    with pytest.raises(StoreError, match="no gold item of 'cats'"):
        people.remove_gold(store, item, project="cats")
    people.remove_gold(store, item, project="default")
    assert gold_items(store, "default") == []
    for chosen, order, number, message in (
        (None, "A", 1, "set: choose one first"),
        ("0" * 64, "A", 1, "set: choose one first"),
        (item, None, 1, "expected the letters A to D"),
        (item, "A", None, "expected a whole number"),
        (item, "A", 1.5, "expected a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            people.add_gold(store, chosen, order, number)


def test_a_qualification_is_asked_for_in_percent(store: Store, add_items: Any) -> None:
    (item,) = add_items(1)
    assert people.asked_first(store, None) == people.asked_first(store, "default") == (0, 60)
    people.add_gold(store, item, "B > A", 5)
    assert people.ask_first(store, "default", 1, 80) == "Gold items that come first now: 1"
    assert people.asked_first(store, "default") == (1, 80)
    for number, percent, message in (
        (None, 80, "come first: expected a whole number, got None"),
        (0.5, 80, "come first: expected a whole number, got 0.5"),
        (1, None, "percent as expected: expected above 0 and at most 100, got None"),
        (1, 0, "percent as expected: expected above 0 and at most 100, got 0"),
        (2, 80, "expected at most 1, the gold items"),
    ):
        with pytest.raises(InputError, match=message):
            people.ask_first(store, "default", number, percent)
    assert people.asked_first(store, "default") == (1, 80)
    assert people.ask_first(store, "default", 0, 80) == "Gold items that come first now: 0"
    assert people.asked_first(store, "default") == (0, 60)


def test_candidates_have_letters_and_texts_are_text(store: Store, add_items: Any) -> None:
    (item,) = add_items(1)
    shown = people.candidates_of(store, item)
    assert shown.count(f'src="api/people/items/{item}/') == 4
    shown = people.candidates_of(store, add_texts(store, [SCRIPT, "a fox"]))
    assert "&lt;img src=x" in shown
    assert "<figcaption>B</figcaption>" in shown
    assert people.candidates_of(store, None) == people.candidates_of(store, "0" * 64)


CHANGING_NO_TABLE = {"save-guidelines", "invite"}


def test_whatever_is_pressed_on_the_page_draws_the_tables_anew(store: Store, tmp_path: Any) -> None:
    settings = Settings(images=tmp_path / "images", runs=tmp_path / "runs", pages=("people",))
    app = built(settings, store)
    with TestClient(app, base_url=HERE) as client:
        config = client.get("/config").json()
    names = {each["id"]: each["props"].get("elem_id") for each in config["components"]}
    events = config["dependencies"]
    pressed = [
        (names.get(of), kind, each)
        for each in events
        for of, kind in each["targets"]
        if kind == "click" or "_" in kind or names.get(of) == "queue-order"
    ]

    def anew(event: dict[str, Any]) -> bool:
        after = [each for each in events if each["trigger_after"] == event["id"]]
        return event["js"] == ANEW or any(map(anew, after))

    stale = [
        (name, kind)
        for name, kind, event in pressed
        if name not in CHANGING_NO_TABLE and not anew(event)
    ]
    assert len(pressed) >= 15
    assert stale == []


@pytest.fixture
def accounts(store: Store) -> Accounts:
    accounts = Accounts(store.database)
    accounts.add("Lea", PASSWORD, role="admin", group="default")
    accounts.add("Lu", PASSWORD, role="lead", group="default")
    accounts.add("Ann", PASSWORD, role="annotator", group="default")
    return accounts


def account_of(accounts: Accounts, name: str) -> Account:
    return next(each for each in accounts.all() if each.name == name)


def test_a_lead_invites_annotators_and_an_admin_anybody(accounts: Accounts) -> None:
    lead, admin = account_of(accounts, "Lu"), account_of(accounts, "Lea")
    link = account_page.invited(accounts, lead, "annotator", " cosy ")
    found = accounts.invitation(link.removeprefix("join#"))
    assert found is not None
    assert (found.role, found.group, found.by) == ("annotator", "cosy", "lu")
    assert account_page.invited(accounts, admin, "admin", "default").startswith("join#")
    for by, role, message in (
        (lead, "lead", "Lu \\(lead\\) may not invite as lead"),
        (lead, "king", "role: expected one of annotator, lead, admin, got 'king'"),
        (account_of(accounts, "Ann"), "annotator", "Ann \\(annotator\\) may not invite"),
        (None, "annotator", "for leads; ask one of them"),
    ):
        with pytest.raises((InputError, StoreError), match=message):
            account_page.invited(accounts, by, role, "default")


def test_accounts_offer_what_the_viewer_may_do_and_names_are_text(accounts: Accounts) -> None:
    accounts.add(SCRIPT, PASSWORD, role="annotator", group=SCRIPT)
    as_lead, as_admin, as_annotator = (
        account_page.table(accounts, account_of(accounts, name)) for name in ("Lu", "Lea", "Ann")
    )
    for shown in (as_lead, as_admin, as_annotator):
        assert SCRIPT not in shown
        assert "&lt;img src=x" in shown
        assert "$argon2" not in shown
    assert 'data-do="account_disable" data-of="ann"' in as_lead
    assert 'data-do="account_disable" data-of="lea"' not in as_lead
    assert "account_role" not in as_lead
    assert 'data-do="account_role" data-of="lu" data-role="annotator"' in as_admin
    assert "data-do" not in as_annotator
    account_page.change(accounts, account_of(accounts, "Lu"), "disable", "ann", None)
    assert "Enable: Ann" in account_page.table(accounts, account_of(accounts, "Lu"))
    account_page.change(accounts, account_of(accounts, "Lea"), "role", "lu", "annotator")
    assert account_of(accounts, "Lu").role == "annotator"
    for what, role in (("enable", None), ("role", "lead")):
        with pytest.raises(StoreError, match="may not do that"):
            account_page.change(accounts, account_of(accounts, "Lu"), what, "ann", role)


def test_without_accounts_it_says_how_the_first_is_made(store: Store) -> None:
    assert "imgalign accounts add NAME --role admin" in account_page.table(
        Accounts(store.database), None
    )
    with pytest.raises(StoreError, match="make the first by"):
        account_page.invited(Accounts(store.database), None, "annotator", "default")


def test_without_accounts_anybody_on_this_machine_leads(store: Store) -> None:
    accounts = Accounts(store.database)
    assert may(accounts, {}, "admin")
    accounts.add("Lea", PASSWORD, role="admin", group="default")
    assert not may(accounts, {}, "annotator")


def test_an_annotator_reaches_nothing_of_it_and_is_told_nothing(
    store: Store, accounts: Accounts, add_items: Any, tmp_path: Any
) -> None:
    (item,) = add_items(1)
    mark_gold(store, item, ((0,), (1, 2, 3)))
    exclude(store.database, "ann", project="default")
    set_guidelines(store.database, "default", "Hands first.")
    set_queue_order(store.database, "default", "informative")
    settings = Settings(images=tmp_path / "images", runs=tmp_path / "runs")
    app = built(settings, store)
    client, lead = (TestClient(app, base_url=HERE, follow_redirects=False) for _ in range(2))
    for browser, name in ((client, "Ann"), (lead, "Lu")):
        sent = {"name": name, "password": PASSWORD}
        assert browser.post("/api/login", json=sent).status_code == 200
    image = f"/api/people/items/{item}/0"
    assert lead.get(image).headers["content-type"] == "image/png"
    for path in ("/people", "/people/", "/config", image):
        assert client.get(path).status_code == 403, path
    assert client.post("/gradio_api/queue/join", json={"data": []}).status_code == 403
    chosen = ("queue-order", "Ranked next")
    parts = ("gold_remove", "attention_", "Expected order", "Exclude", "people-guidelines")
    for label in (*parts, *chosen):
        assert label not in client.get("/").text  # no part of the page that is for leads
    answers = [client.get("/api/rank/guidelines?project=default")]
    assert answers[0].json() == {"text": "Hands first."}
    asked = {"annotator": "Ann"}
    for _ in range(2):
        answers.append(client.post("/api/rank/next", json=asked))
    screen = answers[-1].json()
    ranking = [[place] for place in range(4)]
    key = {**asked, "key": "a key of hers", "item": screen["item"]}
    answers.append(
        client.post("/api/rank/submit", json={**key, "ranking": ranking, "verdict": "ranked"})
    )
    for path in ("votes", "projects", "next"):
        answers.append(client.post(f"/api/rank/{path}", json=asked))
    for answer in answers:
        assert answer.status_code == 200
        for word in ("gold", "exclu", "expected", "alpha", "propens", "priorit", "informative"):
            assert word not in answer.text.lower(), (word, answer.url)


@pytest.mark.parametrize(
    ("project", "order", "said"),
    [
        ("default", "newest", "expected oldest or informative"),
        ("default", None, "expected oldest or informative"),
        ("dogs", "oldest", "nothing is queued there"),
        (None, "oldest", "project"),
        (f"default{COMPARISONS}", "informative", "blind comparisons"),
    ],
)
def test_an_order_that_there_is_not_changes_nothing_and_the_page_says_why(
    store: Store, add_items: Any, project: str | None, order: str | None, said: str
) -> None:
    add_items(1)
    add_items(1, project=f"default{COMPARISONS}")
    set_queue_order(store.database, "default", "informative")
    with pytest.warns(UserWarning, match=said):
        people._rank_next(store, project, project, order)
    assert queue_order_of(store.database, "default") == "informative"


def test_nothing_that_an_annotator_gets_tells_an_attention_item_from_others(
    store: Store, add_items: Any, tmp_path: Any, secrets: tuple[str, ...]
) -> None:
    prompts = ("a red fox", "an old castle", "two cups of coffee")
    add_items(3, prompts=prompts)
    added = add_attention(store, "default", count=2, overlap=1, seed=0)
    settings = Settings(images=tmp_path / "images", runs=tmp_path / "runs", pages=("rank",))
    app = built(settings, store)
    asked = {"annotator": "Ann"}
    shapes: dict[bool, set[str]] = {True: set(), False: set()}
    with TestClient(app, base_url=HERE) as client:
        while (screen := client.post("/api/rank/next", json=asked).json())["item"]:
            is_attention = item_named(store, screen["item"], "Ann") in added
            sent = {"key": f"key-{screen['done']:08d}", "item": screen["item"]}
            said = {"ranking": [[place] for place in range(4)], "verdict": "ranked"}
            saved = client.post("/api/rank/submit", json={**asked, **sent, **said}).json()
            vote = client.post("/api/rank/votes", json=asked).json()["votes"][0]
            heads = [
                sorted(set(client.get(f"/{each['url']}").headers) - {"date"})
                for each in screen["candidates"]
            ]
            shapes[is_attention].add(str([*map(sorted, (screen, saved, vote)), heads]))
            assert (screen["prompt"] in prompts, len(screen["candidates"])) == (True, 4)
            for word in ("attention", "expected", *secrets):
                assert word not in str([screen, saved, vote]), word
    assert shapes[True] == shapes[False]
    assert len(shapes[True]) == 1


def test_attention_items_are_listed_with_their_images_and_answers_and_a_button(
    store: Store, add_items: Any
) -> None:
    add_items(2, prompts=(SCRIPT, "an old castle"))
    add_attention(store, "default", count=2, overlap=3, seed=0)
    rank_all(store, "ann")
    first, second = attention_items(store, "default")
    withdraw(store, second.item_id, project="default")
    *_, shown = people.tables(store, "default")
    assert SCRIPT not in shown
    assert shown.count("&lt;img src=x") >= 1
    for each in (first, second):
        (row,) = [row for row in shown.split("<tr") if each.item_id in row]
        own, *others = re.findall(r"<figure.*?</figure>", row)
        assert "Belongs to the prompt" in own
        assert f"api/people/items/{each.item_id}/0" in own
        assert len(others) == 3
        assert all("Of another prompt" in other for other in others)
        withdrawn = each is second
        assert '<td data-label="Judged">1</td>' in row
        assert f'<td data-label="Right">{each.right} <small>{each.right:.0%}</small></td>' in row
        assert ("withdrawn since" in row) == withdrawn
        assert (f'data-do="attention_back" data-of="{each.item_id}"' in row) == withdrawn
        assert (f'data-do="attention_withdraw" data-of="{each.item_id}"' in row) != withdrawn


def test_a_forged_set_becomes_no_gold_item_where_it_is_an_attention_item(
    store: Store, add_items: Any
) -> None:
    add_items(2, prompts=("a red fox", "an old castle"))
    (added,) = add_attention(store, "default", count=1, overlap=3)
    with pytest.raises(InputError, match="expected an ordinary item, got attention item"):
        people.add_gold(store, added, "A", 5)


@pytest.mark.parametrize(
    ("count", "overlap", "message"),
    [
        (None, 1, "attention items: expected a whole number, got None"),
        (1.5, 1, "attention items: expected a whole number, got 1.5"),
        (1, 0.5, "annotators: expected a whole number, got 0.5"),
        (1, 1, "expected at most 0, got 1; each needs a prompt of project ''"),
    ],
)
def test_a_wrong_number_of_attention_items_is_refused(
    store: Store, add_items: Any, count: Any, overlap: Any, message: str
) -> None:
    add_items(2)
    with pytest.raises(InputError, match=message):
        people.check_attention(store, None, count, overlap)
