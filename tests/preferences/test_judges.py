"""AI judges in the store: marked, with their provenance, and never mixed with people unasked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from judges import JUDGE, another, judge_next
from sqlalchemy import create_engine, text
from submissions import forged, judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences import database
from imgalign.preferences.checking import check_store
from imgalign.preferences.coverage import coverage
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.judges import add_judge, chosen_rankings, judges, rankings_by
from imgalign.preferences.makers import rate_makers
from imgalign.preferences.records import Answer
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "images")


@pytest.fixture
def mixed(store: Store, add_items: Add) -> Store:
    """The first of two items was ranked by a person, both by an AI judge."""
    add_items(2)
    store.submit(judge(store.next_item("ann")))
    for _ in range(2):
        judge_next(store)
    return store


def test_an_ai_judge_is_an_annotator_of_its_own_with_its_provenance(store: Store):
    first = add_judge(store, JUDGE)
    assert add_judge(store, JUDGE) == first
    assert (first.kind, first.group, first.simulated) == ("an AI judge", "plain", False)
    changes: list[dict[str, Any]] = [
        {"model": "org/other"},
        {"constitution": "{}"},
        {"host": None},
        {"revision": "abc"},
        {"question_hash": "1" * 64},
        {"image_size": 512},
    ]
    others = [add_judge(store, another(**change)) for change in changes]
    assert len({each.annotator_id for each in (first, *others)}) == 1 + len(changes)
    known = judges(store)
    assert known[first.judge_id] == JUDGE
    assert list(known.values()) == [JUDGE, *(another(**change) for change in changes)]


def test_an_ai_judge_shares_its_name_with_nobody(store: Store):
    name = add_judge(store, JUDGE).name
    with pytest.raises(StoreError, match="the name of an AI judge, not of a person"):
        store.add_annotator(name, group="plain")
    with pytest.raises(StoreError, match="the name of an AI judge, not of a simulated annotator"):
        store.add_annotator(name, group="plain", simulated=True)
    taken = another(model="other")
    store.add_annotator(f"AI Other {taken.judge_id[:8]}", group="plain")
    with pytest.raises(StoreError, match="the name of a person, not of an AI judge"):
        add_judge(store, taken)


def test_answers_are_kept_in_the_numbers_of_the_candidates(store: Store, add_items: Add):
    add_items(1)
    sent = (Answer(0, 0, 2, "first"), Answer(0, 2, 0, None), Answer(1, 1, 0, "second"))
    item = judge_next(store, answers=sent)
    (ranking,) = store.rankings(judged_by="ai")
    order = store.display_order(item.item_id, ranking.annotator)
    assert ranking.answers == tuple(
        Answer(each.principle, order[each.first], order[each.second], each.choice) for each in sent
    )
    assert ranking.judge_id == JUDGE.judge_id


@pytest.mark.parametrize(
    "answers",
    [
        (),
        (Answer(0, 1, 1, "first"),),
        (Answer(0, 0, 3, "first"),),
        (Answer(-1, 0, 1, "first"),),
        (forged(Answer(0, 0, 1, None), choice="A"),),
    ],
)
def test_a_judgement_of_an_ai_judge_needs_answers_that_fit_its_item(
    store: Store, add_items: Add, answers: tuple[Answer, ...]
):
    add_items(1)
    with pytest.raises(InputError, match="answers"):
        judge_next(store, answers=answers)
    assert list(store.rankings(judged_by="all")) == []


def test_people_have_no_answers(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    with pytest.raises(InputError, match="answers: expected none"):
        store.submit(judge(item, answers=(Answer(0, 0, 1, "first"),)))


def test_who_reads_rankings_gets_those_of_people_unless_it_asks(mixed: Store):
    assert [each.judge_id for each in mixed.rankings()] == [None]
    assert [each.annotator for each in mixed.rankings()] == ["ann"]
    assert {each.judge_id for each in mixed.rankings(judged_by="ai")} == {JUDGE.judge_id}
    assert len(list(mixed.rankings(judged_by="ai"))) == 2
    assert len(list(mixed.rankings(judged_by="all"))) == 3


def test_what_is_left_out_is_counted_and_a_mix_is_said(
    mixed: Store, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    assert len(chosen_rankings(mixed, "images")) == 1
    assert caplog.messages == [
        "rankings: 2 by AI judges are left out; --judged-by all takes them too"
    ]
    caplog.clear()
    assert len(chosen_rankings(mixed, "images", judged_by="ai", option="data.judged_by=")) == 2
    assert caplog.messages == [
        "rankings: 1 by people are left out; data.judged_by=all takes them too"
    ]
    caplog.clear()
    assert len(chosen_rankings(mixed, "images", judged_by="all")) == 3
    assert caplog.messages == ["rankings: 1 by people and 2 by AI judges, mixed"]


def test_where_only_the_others_have_ranked_it_says_how_to_ask_for_them(mixed: Store):
    by_people, by_ai = (list(mixed.rankings(judged_by=who)) for who in ("people", "ai"))
    with pytest.raises(
        InputError, match=r"here: expected some by people, got 2 by AI judges; .* --judged-by ai"
    ):
        rankings_by("people", by_ai, where="here")
    with pytest.raises(InputError, match="expected some by AI judges, got 1 by people"):
        rankings_by("ai", by_people)
    assert rankings_by("people", []) == []


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"project": "cats"}, "rankings of project 'cats': expected rankings, got none; there are"),
        ({"project": "cats"}, "there are: project default$"),
        ({"group": "warm", "annotator": "Bea"}, "of group 'warm' and annotator 'Bea': expected"),
    ],
)
def test_a_name_that_has_no_rankings_is_answered_with_those_that_have(
    mixed: Store, filters: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message):
        chosen_rankings(mixed, "images", **filters)


def test_an_empty_store_has_no_rankings_of_any_name(store: Store):
    assert chosen_rankings(store, "images", project="cats") == []


def test_ratings_leave_ai_judges_out_unless_asked(mixed: Store):
    with pytest.raises(InputError, match="got 1 ranking of images by storybook"):
        rate_makers(mixed)
    with pytest.raises(InputError, match="got 3 rankings"):
        rate_makers(mixed, judged_by="all")


def test_an_ai_judge_takes_no_item_from_people_and_people_take_none_from_it(
    store: Store, add_items: Add
):
    add_items(3)
    name = add_judge(store, JUDGE).name
    assert store.next_item(name) is not None  # leased
    assert store.counts("ann").left == 3
    judge_next(store)
    assert store.counts("ann").left == 3
    for _ in range(3):
        store.submit(judge(store.next_item("ann")))
    assert store.counts("bob").left == 0
    assert store.counts(name).left == 2
    for _ in range(2):
        judge_next(store)
    assert store.next_item(name) is None


def test_what_has_been_answered_is_counted_without_ai_judges(mixed: Store):
    found = coverage(mixed, project="default", source="test", simulated=False)
    assert (found.given, found.wanted) == (1, 2)


def test_export_and_import_keep_the_mark_the_provenance_and_the_answers(
    mixed: Store, other: Store, tmp_path: Path
):
    path = tmp_path / "rankings.jsonl"
    assert export_rankings(mixed, path) == 3
    assert import_rankings(other, path) == 3
    assert list(other.rankings(judged_by="all")) == list(mixed.rankings(judged_by="all"))
    assert [each.kind for each in other.annotators()] == ["a person", "a person", "an AI judge"]
    assert judges(other) == judges(mixed)
    assert import_rankings(other, path) == 0
    export_rankings(other, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()


def test_an_export_from_before_ai_judges_has_none(store: Store, other: Store, tmp_path: Path):
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.pop("judge_id", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    import_rankings(other, path)
    assert [each.kind for each in other.annotators()] == ["a person"] * 2


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("org/tiny-judge", "org/large-judge", "judge [0-9a-f]{12} is not what its id says"),
        ('[0, 0, 1, "first"]', '[0, 0, 9, "first"]', "answers: expected two of 3 candidates"),
        ('[0, 0, 1, "first"]', "[0, 0]", "answers: expected rows of four"),
    ],
)
def test_an_export_that_was_changed_is_refused_and_leaves_nothing(
    store: Store, add_items: Add, other: Store, tmp_path: Path, before: str, after: str, why: str
):
    add_items(1)
    name = add_judge(store, JUDGE).name
    order = store.display_order(store.next_item(name).item_id, name)
    judge_next(store, answers=(Answer(0, order.index(0), order.index(1), "first"),))
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(InputError, match=why):
        import_rankings(other, path)
    assert other.annotators() == []


def test_a_person_does_not_become_an_ai_judge_by_an_import(
    mixed: Store, other: Store, tmp_path: Path
):
    path = tmp_path / "rankings.jsonl"
    export_rankings(mixed, path)
    other.add_annotator(add_judge(mixed, JUDGE).name, group="plain")
    with pytest.raises(StoreError, match="annotator is here already with another judge_id"):
        import_rankings(other, path)


@pytest.mark.parametrize("table", ["judges", "judge_answers"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET {} = '0'"])
def test_what_is_known_of_ai_judges_is_append_only(mixed: Store, table: str, change: str):
    column = {"judges": "model", "judge_answers": "answers"}[table]
    with pytest.raises(Exception, match="append-only"), mixed.database.write() as connection:
        connection.execute(text(change.format(table, column)))


def test_the_check_of_a_store_finds_a_judge_that_was_changed(store: Store):
    add_judge(store, JUDGE)
    assert check_store(store).passed
    with store.database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("DROP TRIGGER judges_append_only ON judges"))
        else:
            connection.execute(text("DROP TRIGGER judges_no_update"))
        connection.execute(text("UPDATE judges SET model = 'another'"))
    assert check_store(store).faults == {
        "AI judges that are not what their id says": [JUDGE.judge_id[:12]]
    }


def test_a_database_from_before_ai_judges_keeps_its_rows_and_has_none(url: str, tmp_path: Path):
    moment = "2026-01-01 00:00:00.000000"
    engine = create_engine(url)
    with engine.begin() as connection:
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        for name, simulated in [("ann", "false"), ("cosy-1", "true")]:
            connection.exec_driver_sql(
                "INSERT INTO annotators (annotator_id, name, group_name, simulated, created_at) "
                f"VALUES ('{name}', '{name}', 'cosy', {simulated}, '{moment}')"
            )
        for statement in [
            f"INSERT INTO texts VALUES ('t0', 'a cat', '{moment}'), ('t1', 'a dog', '{moment}')",
            f"INSERT INTO items VALUES (1, 'i', 'default', 'a', 's', 1, '{moment}', 'texts')",
            "INSERT INTO candidates VALUES ('i', 0, NULL, 't0'), ('i', 1, NULL, 't1')",
            "INSERT INTO rankings VALUES (1, 'r', 'i', 'ann', 'k', 0, 'ranked', NULL, '[1, 0]', "
            f"'[[1], [0]]', NULL, '{moment}')",
        ]:
            connection.exec_driver_sql(statement)
    engine.dispose()
    with Store.open(url, images=tmp_path / "images") as store:
        kinds = [(each.name, each.kind) for each in store.annotators()]
        assert kinds == [("ann", "a person"), ("cosy-1", "a simulated annotator")]
        (ranking,) = store.rankings()
        assert (ranking.annotator, ranking.judge_id, ranking.answers) == ("ann", None, ())
        assert ranking.ranking == ((1,), (0,))
        assert judges(store) == {}
        add_judge(store, JUDGE)
        with pytest.raises(Exception, match=r"(?i)foreign key"), store.database.write() as writing:
            writing.execute(text("UPDATE annotators SET judge_id = 'nobody'"))
