import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submissions import judge, on_screen

from imgalign.errors import InputError, StoreError
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.records import Receipt, Submission
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def rank_everything(store: Store, annotator: str) -> None:
    verdicts: list[dict[str, Any]] = [
        {"ranking": ((0,), (1, 2)), "client_ms": 12},
        {"verdict": "all_bad"},
        {"verdict": "skipped", "reason": "unsafe — naïve 🦊\nsecond line"},
    ]
    for index, fields in enumerate(verdicts):
        item = store.next_item(annotator)
        assert item is not None
        if "ranking" in fields:
            fields["ranking"] = on_screen(store, item, fields["ranking"], annotator)
        key = f"{annotator} {index}"
        store.submit(Submission(key=key, item_id=item.item_id, annotator=annotator, **fields))


@pytest.fixture
def full(store: Store, add_items: Add) -> Store:
    add_items(3, overlap=2)
    rank_everything(store, "ann")
    rank_everything(store, "bob")
    store.undo("ann", "ann 1")
    return store


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "other images")


def test_what_is_exported_is_imported_again_whole(full: Store, empty: Store, tmp_path: Path):
    path = tmp_path / "rankings.jsonl"
    assert export_rankings(full, path) == 6
    assert import_rankings(empty, path, images=full.images.root) == 6
    rankings = list(full.rankings(include_undone=True))
    assert list(empty.rankings(include_undone=True)) == rankings
    assert [r.undone_at is not None for r in rankings] == [False, True] + 4 * [False]
    assert empty.annotators() == full.annotators()
    for ranking in rankings:
        for image in ranking.sample_ids:
            assert empty.provenances(image) == full.provenances(image)
            assert empty.image_path(image).read_bytes() == full.image_path(image).read_bytes()
    export_rankings(empty, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()


def test_an_export_of_a_project_is_whole_and_has_nothing_of_others(
    store: Store, add_items: Add, empty: Store, tmp_path: Path
):
    add_items(3, overlap=2)
    add_items(1, project="other")
    rank_everything(store, "ann")
    store.undo("ann", "ann 1")
    store.add_annotator("eve")
    other = store.next_item("eve", project="other")
    store.submit(judge(other, "eve"))
    path = tmp_path / "rankings.jsonl"
    assert export_rankings(store, path, project="default") == 3
    for word in ("eve", "other"):
        assert f'"{word}"' not in path.read_text()
    assert import_rankings(empty, path, images=store.images.root) == 3
    of_project = list(store.rankings(project="default", include_undone=True))
    assert list(empty.rankings(include_undone=True)) == of_project
    for image in of_project[0].sample_ids:
        assert empty.provenances(image) == store.provenances(image)
    with pytest.raises(StoreError, match="project 'x': nothing is queued there"):
        export_rankings(store, tmp_path / "none.jsonl", project="x")
    assert not (tmp_path / "none.jsonl").exists()


def test_a_file_with_two_standing_judgements_of_one_item_by_one_annotator_is_refused(
    store: Store, add_items: Add, empty: Store, tmp_path: Path
):
    add_items(1)
    store.submit(judge(store.next_item("ann")))
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    lines = path.read_text().splitlines()
    (ranking,) = [each for line in lines if (each := json.loads(line)).get("kind") == "ranking"]
    again = {**ranking, "ranking_id": "f" * 32, "key": "another key", "attempt": 1}
    path.write_text("\n".join([*lines, json.dumps(again)]) + "\n")
    with pytest.raises(InputError, match="a second judgement of its item by 'ann', of which one"):
        import_rankings(empty, path, images=store.images.root)
    assert list(empty.rankings()) == []


def test_an_export_of_an_older_version_is_read_as_its_database_would_be(
    store: Store, add_items: Add, empty: Store, tmp_path: Path
):
    add_items(1, overlap=2)
    store.add_annotator("cosy-1", group="cosy", simulated=True)
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert any(line.get("simulated") for line in lines)
    for line in lines:
        line.pop("dtype", None)
        line.pop("simulated", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    import_rankings(empty, path, images=store.images.root)
    assert empty.annotators() == store.annotators()


def test_a_mark_that_is_no_truth_value_is_refused(store: Store, empty: Store, tmp_path: Path):
    store.add_annotator("somebody", simulated=True)
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    path.write_text(path.read_text().replace('"simulated": true', '"simulated": "yes"'))
    with pytest.raises(InputError, match="simulated: expected true or false, got 'yes'"):
        import_rankings(empty, path)


def test_work_goes_on_in_the_imported_store(full: Store, empty: Store, tmp_path: Path):
    export_rankings(full, tmp_path / "rankings.jsonl")
    import_rankings(empty, tmp_path / "rankings.jsonl", images=full.images.root)
    item = empty.next_item("ann")
    assert item is not None
    assert item.prompt == "prompt 1"  # the undone one
    empty.undo("bob", "bob 0")
    assert empty.counts("bob").left == 1


def test_importing_twice_changes_nothing(full: Store, tmp_path: Path):
    path = tmp_path / "rankings.jsonl"
    export_rankings(full, path)
    before = list(full.rankings(include_undone=True))
    assert import_rankings(full, path) == 0
    assert list(full.rankings(include_undone=True)) == before


def test_an_export_cut_short_is_refused_and_leaves_nothing(
    full: Store, empty: Store, tmp_path: Path
):
    path = tmp_path / "rankings.jsonl"
    export_rankings(full, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"rankings\.jsonl:\d+: not JSON"):
        import_rankings(empty, path, images=full.images.root)
    assert list(empty.rankings()) == []
    assert empty.annotators() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}\n", "expected"),
        ('{"kind": "imgalign-rankings", "version": 2}\n', "expected"),
        ('{"kind": "imgalign-rankings", "version": 1}\n{"kind": "x"}\n', ":2: expected a line"),
        ('{"kind": "imgalign-rankings", "version": 1}\n[]\n', ":2: expected a line"),
        (
            '{"kind": "imgalign-rankings", "version": 1}\n{"kind": "undo", "id": 1}\n',
            ":2: missing or unknown fields: created_at, id, ranking_id",
        ),
        (
            '{"kind": "imgalign-rankings", "version": 1}\n'
            '{"kind": "undo", "ranking_id": "x", "created_at": "today"}\n',
            ":2: created_at: expected an ISO time with its zone, got 'today'",
        ),
    ],
)
def test_a_file_of_another_kind_is_one_clear_line(
    empty: Store, tmp_path: Path, content: str, message: str
):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        import_rankings(empty, path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "changed", "message"),
    [
        ('"tie_groups": [[0], [1, 2]]', '"tie_groups": [[0], [1, 1]]', "exactly once"),
        ('"display_order": [', '"display_order": [7, ', "exactly once"),
        ('"tie_groups": [[0], [1, 2]]', '"tie_groups": null', "expected tie groups"),
        ('"verdict": "all_bad"', '"verdict": "awful"', "verdict: expected one of"),
        ('"annotator_id": "ann", "key"', '"annotator_id": "eve", "key"', "does not fit"),
    ],
)
def test_a_ranking_in_a_file_is_held_to_the_same_rules(
    full: Store, empty: Store, tmp_path: Path, line: str, changed: str, message: str
):
    path = tmp_path / "rankings.jsonl"
    export_rankings(full, path)
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, changed))
    with pytest.raises(InputError, match=rf"jsonl:\d+: .*{message}"):
        import_rankings(empty, path, images=full.images.root)
    assert list(empty.rankings()) == []


HEAD = b'{"kind": "imgalign-rankings", "version": 1}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"kind": "ann\xff"}', "not UTF-8 text"),
        (b"[" * 100_000, "not JSON .nested"),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, "not JSON .nested"),
        (b"1" * 10_000, "not JSON"),
        (b'"' + b"x" * 2_000_000 + b'"', "longer than 1048576 bytes"),
        (b'{"kind": "undo", "ranking_id": "\\ud800", "created_at": "2026-11-22"}', "not JSON"),
        (b'{"kind": ["undo"]}', "expected a line of a kind"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_nothing_is_taken(
    empty: Store, tmp_path: Path, line: bytes, message: str
):
    path = tmp_path / "x.jsonl"
    annotator = (
        b'{"kind": "annotator", "annotator_id": "ann", "name": "Ann", "group_name": "g", '
        b'"created_at": "2026-11-22T09:00:00+00:00"}\n'
    )
    path.write_bytes(HEAD + annotator + line + b"\n" + annotator)
    with pytest.raises(InputError, match=rf"x\.jsonl:3: {message}") as raised:
        import_rankings(empty, path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400
    assert empty.annotators() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_id", '"../../../etc/passwd"'),
        ("image_id", "7"),
        ("image_id", "null"),
        ("width", '"8"'),
        ("width", "true"),
        ("width", "-1"),
        ("width", "3e9"),
        ("num_bytes", "99999999999999999999"),
        ("num_bytes", "1"),
        ("added_at", '"2026-11-22T09:00:00"'),
        ("added_at", '"0001-01-01T00:00:00+14:00"'),
        ("guidance_scale", "NaN"),
        ("guidance_scale", "1" + "0" * 400),
        ("guidance_scale", '"7.5"'),
        ("model", '"a\\u0000b"'),
        ("overlap", "null"),
        ("annotator_id", '"' + "x" * 300 + '"'),
        ("annotator_id", '"\\u200b"'),
        ("client_ms", "0.5"),
        ("display_order", '"012"'),
        ("display_order", "[0, 1, 2, 3]"),
        ("verdict", "[]"),
    ],
)
def test_a_value_that_a_column_cannot_hold_is_one_line_and_leaves_nothing(
    full: Store, empty: Store, tmp_path: Path, field: str, value: str
):
    path = tmp_path / "rankings.jsonl"
    export_rankings(full, path)
    changed, count = re.subn(
        rf'("{field}": )(\[[^\]]*\]|"[^"]*"|[^,}}]+)',
        lambda found: found.group(1) + value,
        path.read_text(),
        count=1,
    )
    assert count == 1
    path.write_text(changed)
    with pytest.raises((InputError, StoreError), match=r"jsonl:\d+: ") as raised:
        import_rankings(empty, path, images=full.images.root)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
    assert empty.annotators() == []
    assert list(empty.images.root.iterdir()) == []


def test_an_item_that_is_not_what_its_id_says_is_refused(full: Store, empty: Store, tmp_path: Path):
    path = tmp_path / "rankings.jsonl"
    export_rankings(full, path)
    path.write_text(path.read_text().replace('"prompt": "prompt 1"', '"prompt": "prompt 9"'))
    with pytest.raises(InputError, match=r"jsonl:\d+: item [0-9a-f]{12} is not what its id says"):
        import_rankings(empty, path, images=full.images.root)


def test_an_image_that_is_not_what_its_name_says_is_not_brought_along(
    full: Store, empty: Store, tmp_path: Path
):
    export_rankings(full, tmp_path / "rankings.jsonl")
    first, second = sorted(full.images.root.rglob("*.png"))[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(StoreError, match="damaged or exchanged"):
        import_rankings(empty, tmp_path / "rankings.jsonl", images=full.images.root)
    assert list(empty.rankings()) == []


def test_names_of_an_older_export_are_one_person(full: Store, empty: Store, tmp_path: Path):
    path = tmp_path / "rankings.jsonl"
    export_rankings(full, path)
    path.write_text(path.read_text().replace('"annotator_id": "ann"', '"annotator_id": " ANN"'))
    assert import_rankings(empty, path, images=full.images.root) == 6
    assert list(empty.rankings()) == list(full.rankings())


def test_where_names_came_from_is_not_exported(full: Store, empty: Store, tmp_path: Path):
    full.add_annotator("guest", client="192.0.2.7")
    export_rankings(full, tmp_path / "rankings.jsonl")
    assert 'client"' not in (tmp_path / "rankings.jsonl").read_text()
    import_rankings(empty, tmp_path / "rankings.jsonl", images=full.images.root)
    assert empty.annotator("guest") == full.annotator("guest")


@pytest.mark.parametrize("content", [b"my notes", b"\xff\xfe", b"{}\n", b""])
def test_a_file_that_is_no_export_is_not_overwritten(full: Store, tmp_path: Path, content: bytes):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="exists and is no export"):
        export_rankings(full, path)
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="none: no such folder"):
        export_rankings(full, tmp_path / "none" / "x.jsonl")


def test_an_export_replaces_an_earlier_one_and_leaves_no_other_file(full: Store, tmp_path: Path):
    (tmp_path / "out").mkdir()
    for _ in range(2):
        assert export_rankings(full, tmp_path / "out" / "x.jsonl") == 6
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.jsonl"]


def test_missing_images_are_named(full: Store, empty: Store, tmp_path: Path):
    export_rankings(full, tmp_path / "rankings.jsonl")
    with pytest.raises(InputError, match=r":2: image [0-9a-f]{12} is not here"):
        import_rankings(empty, tmp_path / "rankings.jsonl")


def test_a_retry_of_what_was_imported_is_the_same_judgement(
    store: Store, empty: Store, add_items: Add, tmp_path: Path
):
    add_items(1)
    sent = judge(store.next_item("ann"))
    receipt = store.submit(sent)
    export_rankings(store, tmp_path / "rankings.jsonl")
    import_rankings(empty, tmp_path / "rankings.jsonl", images=store.images.root)
    assert empty.submit(sent) == Receipt(receipt.ranking_id, created=False)
    with pytest.raises(StoreError, match="already used for another judgement"):
        empty.submit(judge(store.issued_item(sent.item_id, "ann"), ranking=((2,), (1,), (0,))))


def test_contradicting_histories_are_not_merged(
    full: Store, empty: Store, add_items: Add, tmp_path: Path
):
    export_rankings(full, tmp_path / "rankings.jsonl")
    import_rankings(empty, tmp_path / "rankings.jsonl", images=full.images.root)
    for store in (full, empty):  # each store goes its own way
        item = store.next_item("ann")
        assert item is not None
        store.submit(
            Submission(
                key="later",
                item_id=item.item_id,
                annotator="ann",
                verdict="all_bad",
            )
        )
    export_rankings(full, tmp_path / "rankings.jsonl")
    with pytest.raises(StoreError, match="has judged this item here as well"):
        import_rankings(empty, tmp_path / "rankings.jsonl")
