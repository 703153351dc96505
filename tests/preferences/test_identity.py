"""One person is one annotator, however the name is spelled and whatever an older version kept."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine, text
from submissions import judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences import database, identity
from imgalign.preferences.identity import NAMES_PER_CLIENT, person
from imgalign.preferences.records import Counts
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]

MOMENT = "2026-11-22 09:00:0"


@pytest.mark.parametrize(
    "spelling",
    ["Ada", "ADA", "  ada ", "ａｄａ", "Ada\u200b", "ada\n"],  # full width, zero width
)
def test_every_spelling_of_a_name_is_one_person(spelling: str):
    assert person(spelling) == "ada"


def test_what_differs_to_a_reader_stays_different():
    names = ["ada", "ada l", "adá", "a d a", "ад́а", "straße 1"]
    assert len({person(name) for name in names}) == len(names)
    assert person("STRASSE 1") == person("straße 1")


def test_one_person_under_two_spellings_ranks_an_item_once(store: Store, add_items: Add):
    add_items(1, overlap=2)
    first = store.add_annotator("Ada  Lovelace")
    assert store.add_annotator("ada lovelace") == first
    assert (first.annotator_id, first.name) == ("ada lovelace", "Ada Lovelace")
    item = store.next_item("Ada Lovelace")
    store.submit(judge(item, "ADA LOVELACE", key="1"))
    assert store.next_item("ada lovelace") is None
    assert store.counts("Ada Lovelace") == Counts(done=1, left=0, waiting=0)
    (ranking,) = store.rankings(annotator="Ada Lovelace")
    assert ranking.annotator == "ada lovelace"
    assert store.history("ADA LOVELACE") == [ranking]
    assert store.image_for_token(item.tokens[0], "ADA lovelace").is_file()
    assert store.undo("ADA LOVELACE", "1").created
    assert store.annotator("ADA lovelace") == first
    assert store.annotator("eve") is None


def test_a_name_of_invisible_characters_is_refused(store: Store):
    with pytest.raises(InputError, match="annotator: expected a name"):
        store.add_annotator("\u200b\u200d")


def test_a_person_and_a_simulated_annotator_never_share_a_name(store: Store):
    simulated = store.add_annotator("cosy-1", group="cosy", simulated=True)
    assert simulated.simulated
    assert store.add_annotator("Cosy-1", group="cosy", simulated=True) == simulated
    with pytest.raises(StoreError, match="the name of a simulated annotator, not of a person"):
        store.add_annotator("COSY-1", group="cosy")
    store.add_annotator("eve")
    with pytest.raises(StoreError, match="the name of a person, not of a simulated annotator"):
        store.add_annotator("eve", simulated=True)


def test_one_client_cannot_invent_names_without_end(store: Store, monkeypatch: pytest.MonkeyPatch):
    for index in range(NAMES_PER_CLIENT):
        store.add_annotator(f"guest {index}", client="192.0.2.7")
    with pytest.raises(StoreError, match=f"{NAMES_PER_CLIENT} new names came from this address"):
        store.add_annotator("one more", client="192.0.2.7")
    assert store.add_annotator("guest 0", client="192.0.2.7").name == "guest 0"
    store.add_annotator("somebody else", client="192.0.2.8")
    store.add_annotator("one more")
    later = datetime.now(UTC) + identity.CLIENT_WINDOW + timedelta(minutes=1)
    monkeypatch.setattr("imgalign.preferences.store.utc_now", lambda: later)
    store.add_annotator("an hour later", client="192.0.2.7")


def test_where_a_name_came_from_is_not_readable_in_the_database(store: Store):
    store.add_annotator("guest", client="192.0.2.7")
    with store.database.read() as connection:
        kept = connection.execute(text("SELECT client FROM annotators")).scalars().all()
    assert not [value for value in kept if value and "192" in value[:3]]
    assert [len(value) for value in kept if value] == [64]


@pytest.fixture
def old_store(url: str) -> str:
    """A database of the first schema: Ada and ada (of one group) and ADA of another.

    Both judged item i0, ada twice with one taken back; only Ada judged i1; i2 was shown to Ada.
    """
    engine = create_engine(url)
    with engine.begin() as connection:
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

        def add(table: str, *rows: tuple[object, ...]) -> None:
            for row in rows:
                places = ", ".join(f":v{i}" for i in range(len(row)))
                values = {f"v{i}": value for i, value in enumerate(row)}
                connection.execute(text(f"INSERT INTO {table} VALUES ({places})"), values)

        add("images", *((f"p{k}", 8, 8, 100, MOMENT + "0") for k in range(2)))
        for number, (name, group) in enumerate(
            [("Ada", "warm"), ("ada", "warm"), ("ADA", "cool"), ("bob", "warm")]
        ):
            add("annotators", (name, name, group, f"{MOMENT}{number}"))
        for item in range(3):
            add("items", (item, f"i{item}", "default", f"prompt {item}", "s", 2, MOMENT + "0"))
            add("candidates", *((f"i{item}", k, f"p{k}") for k in range(2)))
        shown = [("i0", "Ada"), ("i0", "ada"), ("i1", "Ada"), ("i2", "Ada"), ("i0", "ADA")]
        for shown_item, viewer in shown:
            places = (1, 0) if viewer == "ada" else (0, 1)
            add("assignments", (shown_item, viewer, MOMENT + "0", MOMENT + "9", None))
            views = (
                (f"t{shown_item}{viewer}{k}", shown_item, viewer, k, places[k]) for k in (0, 1)
            )
            add("views", *views)
        judged = [
            # sequence, ranking, item, annotator, key, attempt, order
            (1, "r1", "i0", "Ada", "k", 0, "[0, 1]"),
            (2, "r2", "i0", "ada", "k", 0, "[1, 0]"),
            (3, "r3", "i0", "ada", "k3", 1, "[1, 0]"),
            (4, "r4", "i1", "Ada", "k4", 0, "[0, 1]"),
            (5, "r5", "i0", "ADA", "k5", 0, "[0, 1]"),
        ]
        for sequence, ranking, rated, rater, key, attempt, order in judged:
            row = (sequence, ranking, rated, rater, key, attempt, "ranked", None, order)
            add("rankings", (*row, "[[0], [1]]", None, f"{MOMENT}{sequence}"))
        add("undos", ("r2", MOMENT + "3"))
        if connection.dialect.name == "postgresql":  # which numbers on from where it was told to
            for table in ("rankings", "items"):
                numbers = f"pg_get_serial_sequence('{table}', 'sequence')"
                connection.execute(text(f"SELECT setval({numbers}, 9)"))
    engine.dispose()
    return url


def images_of(folder: Path) -> Path:
    """An images folder in which one image of `old_store` seems to be."""
    (folder / "images" / "p0").mkdir(parents=True)
    (folder / "images" / "p0" / "p0.png").touch()
    return folder / "images"


def test_an_older_database_merges_the_spellings_of_one_person_and_loses_nothing(
    old_store: str, tmp_path: Path
):
    with Store.open(old_store, images=images_of(tmp_path)) as store:
        found = [(a.annotator_id, a.name, a.group) for a in store.annotators()]
        assert found == [
            ("ada", "ada", "warm"),
            ("ada (cool)", "ADA", "cool"),
            ("bob", "bob", "warm"),
        ]
        standing = [(r.ranking_id, r.annotator, r.item_id) for r in store.rankings()]
        assert standing == [
            ("r3", "ada", "i0"),
            ("r4", "ada", "i1"),
            ("r5", "ada (cool)", "i0"),
        ]
        everything = list(store.rankings(include_undone=True))
        assert [r.ranking_id for r in everything] == ["r1", "r2", "r3", "r4", "r5"]
        assert len({(r.annotator, r.key) for r in everything}) == 5
        # The display order is the one under which the standing judgement was given.
        assert store.display_order("i0", "Ada") == (1, 0)
        item = store.next_item("Ada")
        assert item is not None
        assert item.item_id == "i2"
        assert store.submit(judge(item, "ADA", key="new")).created
        store.undo("ada", store.judgement("ada", "k3").key)
        again = store.next_item("ada")
        assert again is not None
        assert again.item_id == "i0"
        assert store.display_order("i0", "Ada") == (1, 0)
        assert store.submit(judge(again, "ada", key="again")).created
        with (
            pytest.raises(Exception, match="append-only"),
            store.database.write() as connection,
        ):
            connection.execute(text("UPDATE rankings SET verdict = 'skipped'"))


def test_simulated_annotators_of_an_older_database_are_known_by_their_names(
    url: str, tmp_path: Path
):
    engine = create_engine(url)
    named = [
        ("cosy-1", "cosy"),
        ("ann", "cosy"),
        ("dreamy-2", "default"),
        ("graphic-12", "graphic"),
    ]
    with engine.begin() as connection:
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for name, group in named:
            connection.exec_driver_sql(
                "INSERT INTO annotators (annotator_id, name, group_name, created_at) "
                f"VALUES ('{name}', '{name}', '{group}', '{MOMENT}0')"
            )
    engine.dispose()
    with Store.open(url, images=tmp_path / "images") as store:
        kinds = {annotator.name: annotator.simulated for annotator in store.annotators()}
    assert kinds == {"cosy-1": True, "ann": False, "dreamy-2": False, "graphic-12": True}


def test_merging_keeps_the_later_judgement_whoever_gave_it(url: str, tmp_path: Path):
    if os.environ.get("IMGALIGN_TEST_POSTGRES"):
        pytest.skip("the same statements as above; once is enough on a server")
    test_order = [("Ada", 1), ("ada", 0)]
    engine = create_engine(url)
    with engine.begin() as connection:
        config = database._alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        run = connection.exec_driver_sql
        run(f"INSERT INTO images VALUES ('p0', 8, 8, 9, '{MOMENT}0'), ('p1', 8, 8, 9, '{MOMENT}0')")
        run(f"INSERT INTO items VALUES (1, 'i', 'default', 'p', 's', 2, '{MOMENT}0')")
        run("INSERT INTO candidates VALUES ('i', 0, 'p0'), ('i', 1, 'p1')")
        for name, last in test_order:
            run(f"INSERT INTO annotators VALUES ('{name}', '{name}', 'g', '{MOMENT}0')")
            run(f"INSERT INTO assignments VALUES ('i', '{name}', '{MOMENT}0', '{MOMENT}1', NULL)")
            for position, candidate in enumerate((0, 1) if last else (1, 0)):
                view = f"'{name}{position}', 'i', '{name}', {position}, {candidate}"
                run(f"INSERT INTO views VALUES ({view})")
            run(
                f"INSERT INTO rankings VALUES ({1 + last}, 'r{name}', 'i', '{name}', '{name}', 0, "
                f"'all_bad', NULL, '[0, 1]', NULL, NULL, '{MOMENT}{1 + last}')"
            )
    engine.dispose()
    with Store.open(url, images=images_of(tmp_path)) as store:
        assert [r.ranking_id for r in store.rankings()] == ["rAda"]
        assert store.display_order("i", "ada") == (0, 1)
        assert [r.ranking_id for r in store.rankings(include_undone=True)] == ["rada", "rAda"]
