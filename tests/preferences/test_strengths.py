"""Images of an adapter at several strengths are told apart, and stores from before are kept."""

import json
from dataclasses import asdict
from pathlib import Path

from databases import UNDO_0018
from PIL import Image
from provenances import provenance
from sqlalchemy import text
from submissions import judge, on_screen

from imgalign.images import png, write_png
from imgalign.preferences import recount
from imgalign.preferences.checking import check_store
from imgalign.preferences.comparisons import compare_makers
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.foreign.image_queue import group_images, queue_groups
from imgalign.preferences.makers import rate_makers, read_makers
from imgalign.preferences.queries import provenance_row
from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store

ADAPTER = {"adapter": "runs/a", "adapter_hash": "a" * 64}
BASE, FULL = provenance(), provenance(**ADAPTER)
WEAK, STRONG = provenance(**ADAPTER, strength=0.6), provenance(**ADAPTER, strength=1.4)
NAMES = ["m", "m + runs/a", "m + runs/a at 0.6", "m + runs/a at 1.4"]


def image(shade: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (shade, 0, 0))


def stored(store: Store, *made: Provenance) -> list[str]:
    return [store.add_image(png(image(number)), facts) for number, facts in enumerate(made)]


def ranked(store: Store, *made: Provenance) -> list[str]:
    """One ranking of their images, in this order."""
    ids = stored(store, *made)
    store.add_item("a cat", ids, source="test")
    item = store.next_item("ann")
    order = tuple((candidate,) for candidate in range(len(made)))
    store.submit(judge(item, ranking=on_screen(store, item, order, "ann")))
    return ids


def test_another_strength_is_another_maker_and_named_with_it(store: Store):
    ids = ranked(store, BASE, FULL, WEAK, STRONG)
    found = read_makers(store)
    assert [found.names[found.of_image[each]] for each in ids] == NAMES
    assert rate_makers(store, ridge=0.1).ratings.num_comparisons == (3, 3, 3, 3)
    assert {each.name for each in compare_makers(store)} == set(NAMES[1:])
    with store.database.read() as connection:
        assert recount.differences(connection) == []


def test_one_path_with_other_weights_is_named_by_hash_and_strength_by_itself(store: Store):
    other = provenance(**ADAPTER | {"adapter_hash": "b" * 64}, strength=0.6)
    ids = stored(store, WEAK, other)
    found = read_makers(store)
    assert [found.names[found.of_image[each]] for each in ids] == [
        "m + runs/a (aaaaaaaa) at 0.6",
        "m + runs/a (bbbbbbbb) at 0.6",
    ]


def test_an_image_in_full_is_known_by_what_it_was_known_by_before():
    digests = [provenance_row(each)["digest"] for each in (FULL, WEAK, STRONG)]
    assert digests[0] == "9b2382d469664df59b23242f97d8c9ea0ce562afc6eab0791d3b6b5baa5a9c57"
    assert len(set(digests)) == 3


def test_an_export_takes_strengths_along_and_one_from_before_has_none(store: Store, tmp_path: Path):
    ids = ranked(store, FULL, WEAK)
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    for name, strengths in (("other", [1.0, 0.6]), ("older", [1.0, 1.0])):
        if name == "older":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            kept = [{k: v for k, v in line.items() if k != "strength"} for line in lines]
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        with Store.open(f"sqlite:///{tmp_path / name}.db", images=tmp_path / name) as other:
            import_rankings(other, path, images=store.images.root)
            assert [other.provenance(each).strength for each in ids] == strengths


def test_an_image_on_disk_keeps_its_strength(store: Store, tmp_path: Path):
    for number, facts in enumerate((FULL, WEAK)):
        path = tmp_path / f"{number:05d}-0.png"
        write_png(image(number), path)
        path.with_suffix(".json").write_text(json.dumps(asdict(facts), default=str))
    queue_groups(store, group_images(tmp_path, per_prompt=4))
    assert sorted(read_makers(store).names.values()) == NAMES[1:3]


def test_a_store_of_version_0012_opens_and_keeps_its_rows(store: Store, url: str, tmp_path: Path):
    ids = ranked(store, BASE, FULL)
    (before,) = compare_makers(store)
    with store.database.write() as connection:
        makers = "kind = 'maker'"
        rows = connection.execute(text(f"SELECT number, value FROM numbers WHERE {makers}")).all()
        for number, value in rows:  # as they were written then
            connection.execute(
                text("UPDATE numbers SET value = :value WHERE number = :number"),
                {"number": number, "value": json.dumps(json.loads(value)[:3])},
            )
        connection.execute(text("ALTER TABLE provenances DROP COLUMN strength"))
        later = ("openings", "qualifications", "admissions", "password_resets")
        for undo in (*UNDO_0018, *(f"DROP TABLE {name}" for name in later)):
            connection.execute(text(undo))
        connection.execute(text("UPDATE alembic_version SET version_num = '0012'"))
    store.close()
    with Store.open(url, images=tmp_path / "images") as again:
        assert [again.provenance(each) for each in ids] == [BASE, FULL]
        assert compare_makers(again) == [before]
        assert check_store(again).passed
        again.add_image(png(image(1)), FULL)
        assert len(again.provenances(ids[1])) == 1
        again.add_image(png(image(7)), WEAK)
        assert "m + runs/a at 0.6" in read_makers(again).names.values()
