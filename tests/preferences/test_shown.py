"""Images in the store: where they come from, and what an annotator sees of them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from submissions import judge

from imgalign.errors import InputError, StoreError
from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def test_provenance_comes_back_whole(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    full = provenance(
        model="stable-diffusion-v1-5/stable-diffusion-v1-5",
        adapter="runs/a/step-000200",
        adapter_hash="ab" * 32,
        negative_prompt="blurry, é 🦊",
        seed=2**63 - 1,
        guidance_scale=0.1 + 0.2,
        eta=1.0,
        created_at=datetime(2026, 11, 22, 9, 0, 0, 123456, UTC),
    )
    image = store.add_image(png(1), full)
    assert store.provenance(image) == full
    with Image.open(store.image_path(image)) as opened:
        assert opened.size == (full.width, full.height)


def test_one_image_made_in_two_ways_keeps_both_provenances(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    base, aligned = provenance(), provenance(adapter="runs/a")
    image = store.add_image(png(1), base)
    assert store.add_image(png(1), aligned) == image
    store.add_image(png(1), provenance())  # made again, later, in the same way
    assert store.provenances(image) == [base, aligned]


def test_a_seed_that_no_database_can_hold_is_refused(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    with pytest.raises(InputError, match=r"provenance.seed"):
        store.add_image(png(1), provenance(seed=2**63))


def test_an_item_on_screen_is_blind_to_model_seed_and_file(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    images = [
        store.add_image(
            png(index, parameters="secret-model, Seed: 424242"),
            provenance(model="secret-model", seed=424242, adapter="runs/secret-model"),
        )
        for index in range(4)
    ]
    store.add_item("a fox", images, source="secret-model against base")
    item = store.next_item("ann")
    shown = json.dumps([item.issued_name, item.prompt, item.tokens])
    for secret in ("secret-model", "424242", *images):
        assert secret not in shown
    for token in item.tokens:
        blind = store.image_bytes_for_token(token, "ann")
        assert b"secret-model" in store.image_for_token(token, "ann").read_bytes()
        assert b"secret-model" not in blind
        assert b"424242" not in blind


def test_tokens_show_the_candidates_in_the_order_issued(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    store.submit(judge(item))
    (ranking,) = store.rankings()
    shown = [store.image_for_token(token, "ann").stem for token in item.tokens]
    assert shown == [ranking.sample_ids[candidate] for candidate in ranking.order]
    assert ranking.order == store.display_order(item.item_id, "ann")


def test_the_display_order_is_known_of_items_that_were_shown_only(store: Store, add_items: Add):
    add_items(1, overlap=2)
    item = store.next_item("ann")
    with pytest.raises(StoreError, match="not issued to annotator 'bob'"):
        store.display_order(item.item_id, "bob")


def test_a_token_works_for_nobody_else(store: Store, add_items: Add):
    add_items(1, overlap=2)
    token = store.next_item("ann").tokens[0]
    assert token not in store.next_item("bob").tokens
    for stranger in ("bob", "eve"):
        with pytest.raises(StoreError, match="unknown, or issued to another annotator"):
            store.image_for_token(token, stranger)
    with pytest.raises(StoreError, match="unknown, or issued to another annotator"):
        store.image_for_token("../../etc/passwd", "ann")


def test_display_orders_differ_between_items_but_not_between_seeded_runs(
    tmp_path: Path, png: Callable[..., bytes], provenance: Callable[..., Provenance]
):
    def orders(run: str, seed: int | None) -> list[tuple[int, ...]]:
        url = f"sqlite:///{tmp_path / run}.db"
        with Store.open(url, images=tmp_path / "images", seed=seed) as store:
            store.add_annotator("ann")
            images = [store.add_image(png(k), provenance(seed=k)) for k in range(8)]
            for index in range(4):
                store.add_item(f"prompt {index}", images, source="test")
            held: dict[str, tuple[int, ...]] = {}
            while item := store.next_item("ann", holding=held):
                held[item.item_id] = store.display_order(item.item_id, "ann")
            return list(held.values())

    first, second, other = orders("a", 1), orders("b", 1), orders("c", None)
    assert first == second
    assert len(set(first)) == 4
    assert first != other  # equal once in 40320 ** 4 times
    assert all(sorted(order) == list(range(8)) for order in first)


def test_an_exchanged_image_is_neither_shown_nor_read(store: Store, add_items: Add):
    add_items(1)
    tokens = store.next_item("ann").tokens
    one, other = (store.image_for_token(token, "ann") for token in tokens[:2])
    one.write_bytes(other.read_bytes())
    for read in (
        lambda: store.image_bytes_for_token(tokens[0], "ann"),
        lambda: store.image_for_token(tokens[0], "ann"),
        lambda: store.image_path(one.stem),
    ):
        with pytest.raises(StoreError, match=rf"{one.name}: damaged or exchanged"):
            read()
    assert store.image_path(other.stem) == other


def test_a_lost_image_file_is_named(store: Store, add_items: Add):
    add_items(1)
    token = store.next_item("ann").tokens[0]
    path = store.image_for_token(token, "ann")
    path.unlink()
    with pytest.raises(StoreError, match=rf"{path.name}: image file is missing"):
        store.image_for_token(token, "ann")
    with pytest.raises(StoreError, match="not in"):
        store.image_path("f" * 64)
