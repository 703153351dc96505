"""Texts in the store: kept as they are, queued and ranked like images, never mixed with them."""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine, text
from submissions import judge, on_screen
from texts import add_texts, text_provenance

from imgalign.errors import InputError, StoreError
from imgalign.preferences import database
from imgalign.preferences.agreement import pair_agreement
from imgalign.preferences.checking import check_store
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.records import ELSEWHERE, UNKNOWN, UNKNOWN_NUMBER, TextProvenance
from imgalign.preferences.samples import rankings_of
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]
THREE = ("a red cat in the snow", "a red cat", "cat, cat, cat")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "images")


@pytest.mark.parametrize(
    "content",
    [
        "  two spaces, a tab\tand a line end\r\n",
        "naïve 🦊",
        unicodedata.normalize("NFD", "naïve 🦊"),
        "<script>alert(1)</script> %s {} ' \" \\",
        "x" * 20_000,
    ],
)
def test_a_text_comes_back_as_it_was_given_under_the_hash_of_its_bytes(store: Store, content: str):
    named = store.add_text(content, text_provenance())
    assert named == hashlib.sha256(content.encode("utf-8")).hexdigest()
    assert store.text(named) == content


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "expected something to read"),
        (" \n\t", "expected something to read"),
        ("a\0b", "cannot be stored"),
        ("a\ud800b", "cannot be stored"),
        ("x" * 20_001, "expected at most 20000 characters, got 20001"),
    ],
)
def test_a_text_that_nobody_can_judge_or_keep_is_refused_in_one_line(
    store: Store, content: str, why: str
):
    with pytest.raises(InputError, match=why) as raised:
        store.add_text(content, text_provenance())
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_a_text_keeps_every_provenance_once(store: Store):
    ours = text_provenance(adapter="runs/a/step-000010", adapter_hash="ab" * 32)
    elsewhere = TextProvenance(
        model=UNKNOWN,
        prompt="a cat",
        seed=UNKNOWN_NUMBER,
        temperature=UNKNOWN_NUMBER,
        max_new_tokens=UNKNOWN_NUMBER,
        imgalign_version=ELSEWHERE,
    )
    for provenance in (ours, elsewhere, ours):
        named = store.add_text("a red cat", provenance)
    assert store.text_provenances(named) == [ours, elsewhere]


@pytest.mark.parametrize("facts", [{"seed": -2}, {"temperature": float("nan")}, {"model": "a\0b"}])
def test_a_provenance_that_cannot_be_kept_is_refused(store: Store, facts: dict[str, object]):
    with pytest.raises(InputError, match=f"provenance.{next(iter(facts))}"):
        store.add_text("a red cat", text_provenance(**facts))


def test_an_unknown_text_is_said_so(store: Store):
    for ask in (store.text, store.text_provenances):
        with pytest.raises(StoreError, match="text 000000000000: not in"):
            ask("0" * 64)


def test_texts_are_ranked_like_images_and_in_the_numbers_of_the_candidates(store: Store):
    add_texts(store, THREE)
    item = store.next_item("ann")
    assert item is not None
    assert item.samples == "texts"
    order = store.display_order(item.item_id, "ann")
    shown = [store.text_for_token(token, "ann") for token in item.tokens]
    assert shown == [THREE[candidate] for candidate in order]
    store.submit(judge(item, ranking=on_screen(store, item, ((1,), (0, 2)))))
    (ranking,) = store.rankings()
    assert ranking.samples == "texts"
    assert ranking.ranking == ((1,), (0, 2))
    assert [store.text(each) for each in ranking.sample_ids] == list(THREE)


def test_a_ranking_of_texts_is_taken_back_and_given_again_and_both_stay_on_record(store: Store):
    add_texts(store, THREE)
    first = judge(store.next_item("ann"))
    store.submit(first)
    store.undo("ann", first.key)
    again = judge(store.next_item("ann"), key="again", verdict="all_bad", ranking=None)
    store.submit(again)
    assert [r.verdict for r in store.rankings(include_undone=True)] == ["ranked", "all_bad"]
    with pytest.raises(Exception, match="append-only"), store.database.write() as connection:
        connection.execute(text("UPDATE rankings SET verdict = 'skipped'"))


def test_one_project_holds_items_of_both_kinds_and_an_item_one(store: Store, add_items: Add):
    add_items(1)
    add_texts(store, THREE)
    kinds = []
    while (item := store.next_item("ann")) is not None:
        assert store.issued_item(item.item_id, "ann") == item
        kinds.append(item.samples)
        store.submit(judge(item))
    assert kinds == ["images", "texts"]
    assert [ranking.samples for ranking in store.rankings()] == kinds
    assert store.counts("ann").done == 2
    image, written = (ranking.sample_ids[0] for ranking in store.rankings())
    with pytest.raises(InputError, match="expected either images or texts, got both"):
        store.add_item("a cat", [image, written], source="test")


def test_an_item_of_a_text_that_was_not_added_is_refused(store: Store):
    known = store.add_text("a red cat", text_provenance())
    with pytest.raises(InputError, match="sample 000000000000: add the image or text before"):
        store.add_item("a cat", [known, "0" * 64], source="test")


def test_a_text_is_shown_to_the_annotator_it_was_issued_to_and_nobody_else(
    store: Store, add_items: Add
):
    add_texts(store, THREE, overlap=2)
    item = store.next_item("ann")
    assert item is not None
    for token, asking in ((item.tokens[0], "bob"), ("no such token", "ann")):
        with pytest.raises(StoreError, match="token: unknown, or issued to another annotator"):
            store.text_for_token(token, asking)
    with pytest.raises(StoreError, match="of a text, not of an image"):
        store.image_for_token(item.tokens[0], "ann")
    add_items(1)
    store.submit(judge(item))
    item = store.next_item("ann")
    assert item is not None
    assert item.samples == "images"
    with pytest.raises(StoreError, match="of an image, not of a text"):
        store.text_for_token(item.tokens[0], "ann")


def test_both_kinds_are_exported_and_imported_whole(
    store: Store, add_items: Add, other: Store, tmp_path: Path
):
    add_items(1)
    add_texts(store, THREE)
    for _ in range(2):
        store.submit(judge(store.next_item("ann")))
    path = tmp_path / "rankings.jsonl"
    assert export_rankings(store, path) == 2
    assert import_rankings(other, path, images=store.images.root) == 2
    assert list(other.rankings()) == list(store.rankings())
    for named in list(store.rankings())[1].sample_ids:
        assert other.text(named) == store.text(named)
        assert other.text_provenances(named) == store.text_provenances(named)
    export_rankings(other, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert import_rankings(other, path) == 0


@pytest.mark.parametrize(
    ("kind", "change", "why"),
    [
        ("text", {"text": "another cat"}, "text [0-9a-f]{12} is not what its id says"),
        ("text", {"text": "x" * 20_001}, "expected at most 20000 characters"),
        ("text", {"text_id": "A" * 64}, "text_id: expected a SHA-256"),
        ("item", {"samples": "images"}, "item [0-9a-f]{12} is not what its id says"),
        ("candidate", {"text_id": None}, "an image_id or a text_id, got neither"),
        ("text_provenance", {"max_new_tokens": -2}, "max_new_tokens: expected a whole number"),
    ],
)
def test_an_export_in_which_a_text_was_changed_is_refused_whole(
    store: Store, other: Store, tmp_path: Path, kind: str, change: dict[str, object], why: str
):
    add_texts(store, THREE)
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = next(line for line in lines if line["kind"] == kind)
    changed |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=why):
        import_rankings(other, path)
    assert check_store(other).lines()[0] == "0 images, 0 items, 0 rankings"


def test_an_export_from_before_texts_is_read(
    store: Store, add_items: Add, other: Store, tmp_path: Path
):
    add_items(1)
    store.submit(judge(store.next_item("ann")))
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.pop("samples", None)
        line.pop("text_id", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert import_rankings(other, path, images=store.images.root) == 1
    assert list(other.rankings()) == list(store.rankings())


def test_a_check_finds_changed_texts_and_items_of_another_kind(store: Store, add_items: Add):
    add_items(1)
    add_texts(store, THREE)
    assert check_store(store).lines() == [
        "3 images, 3 texts, 2 items, 0 rankings",
        "no faults found",
    ]
    with store.database.write() as connection:
        connection.execute(text("UPDATE texts SET text = 'a dog' WHERE text = 'a red cat'"))
        connection.execute(text("UPDATE items SET samples = 'texts'"))
    faults = check_store(store).faults
    assert {kind: len(found) for kind, found in faults.items()} == {
        "changed texts": 1,
        "items that are not what their id says": 1,
    }
    with pytest.raises(StoreError, match="changed in the database"):
        store.text(hashlib.sha256(b"a red cat").hexdigest())


def test_agreement_on_texts_is_that_on_images(store: Store, add_items: Add):
    add_items(1, overlap=2)
    add_texts(store, THREE, overlap=2)
    for annotator, ranking in (("ann", ((0,), (1,), (2,))), ("bob", ((0,), (2,), (1,)))):
        for _ in range(2):
            item = store.next_item(annotator)
            store.submit(judge(item, annotator, ranking=on_screen(store, item, ranking, annotator)))
    for kind in ("images", "texts"):
        of_kind = [ranking for ranking in store.rankings() if ranking.samples == kind]
        agreement = pair_agreement(of_kind)
        assert (agreement.rate, agreement.count) == (2 / 3, 3)


def test_a_reader_of_one_kind_leaves_out_the_other_and_says_so(
    store: Store, add_items: Add, caplog: pytest.LogCaptureFixture
):
    add_items(1)
    add_texts(store, THREE)
    for _ in range(2):
        store.submit(judge(store.next_item("ann")))
    images, written = store.rankings()
    assert rankings_of("images", [images]) == [images]
    assert not caplog.messages
    assert rankings_of("images", store.rankings(), where="here") == [images]
    assert caplog.messages == ["here: 1 of texts are left out"]
    assert rankings_of("images", []) == []
    with pytest.raises(InputError, match=r"here: expected rankings of images, got 1 of texts"):
        rankings_of("images", [written], where="here")


MOMENT = "2026-01-01 00:00:00.00000"


def test_a_database_from_before_texts_keeps_its_rows_and_holds_texts(url: str, tmp_path: Path):
    engine = create_engine(url)
    with engine.begin() as connection:
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        for statement in [
            f"INSERT INTO images VALUES ('p0', 8, 8, 9, '{MOMENT}0'), ('p1', 8, 8, 9, '{MOMENT}0')",
            f"INSERT INTO annotators VALUES ('ann', 'ann', 'warm', '{MOMENT}0', NULL, {{false}})",
            f"INSERT INTO items VALUES (1, 'i', 'default', 'a fox', 's', 1, '{MOMENT}0')",
            "INSERT INTO candidates VALUES ('i', 0, 'p0'), ('i', 1, 'p1')",
            f"INSERT INTO assignments VALUES ('i', 'ann', '{MOMENT}0', '{MOMENT}0', NULL)",
            "INSERT INTO views VALUES ('t0', 'i', 'ann', 0, 1), ('t1', 'i', 'ann', 1, 0)",
            "INSERT INTO rankings VALUES (1, 'r', 'i', 'ann', 'k', 0, 'ranked', NULL, '[1, 0]', "
            f"'[[1], [0]]', NULL, '{MOMENT}0')",
        ]:
            false = "false" if connection.dialect.name == "postgresql" else "0"
            connection.exec_driver_sql(statement.replace("{false}", false))
        if connection.dialect.name == "postgresql":
            for table in ("rankings", "items"):
                numbers = f"pg_get_serial_sequence('{table}', 'sequence')"
                connection.execute(text(f"SELECT setval({numbers}, 9)"))
    engine.dispose()
    (tmp_path / "images" / "p0").mkdir(parents=True)
    (tmp_path / "images" / "p0" / "p0.png").touch()
    with Store.open(url, images=tmp_path / "images") as store:
        (old,) = store.rankings()
        assert (old.samples, old.sample_ids, old.order) == ("images", ("p0", "p1"), (1, 0))
        shown = store.issued_item("i", "ann")
        assert (shown.samples, shown.tokens) == ("images", ("t0", "t1"))
        dangling = [kind for kind in check_store(store).faults if "refer to nothing" in kind]
        assert dangling == []
        add_texts(store, THREE)
        item = store.next_item("ann")
        store.submit(judge(item))
        assert [ranking.samples for ranking in store.rankings()] == ["images", "texts"]
        with pytest.raises(Exception, match="append-only"), store.database.write() as connection:
            connection.execute(text("DELETE FROM rankings"))
        with pytest.raises(Exception, match=r"(?i)foreign key"), store.database.write() as writing:
            writing.execute(text("DELETE FROM candidates"))
