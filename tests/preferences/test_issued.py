"""The names under which annotators are shown items: whose, how long, and what they tell."""

import re
from collections.abc import Callable

import pytest
from submissions import judge
from texts import add_texts

from imgalign.errors import StoreError
from imgalign.preferences.issued import item_named
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


def test_an_item_has_one_name_for_each_annotator_as_long_as_it_is_there(
    store: Store, add_items: Add
):
    (item_id,) = add_items(1, overlap=2)
    ann, bob = (store.next_item(name) for name in ("ann", "bob"))
    assert ann.issued_name != bob.issued_name
    for name, own in (("ann", ann), (" ANN ", ann), ("bob", bob)):
        assert item_named(store, own.issued_name, name) == item_id
    store.submit(judge(ann, key="key-0001"))
    assert item_named(store, ann.issued_name, "ann") == item_id
    store.undo("ann", "key-0001")
    assert store.next_item("ann").issued_name == ann.issued_name
    assert store.issued_item(item_id, "ann").issued_name == ann.issued_name


def test_a_set_of_texts_has_a_name_as_one_of_images_has(store: Store):
    item_id = add_texts(store, ("a red cat", "a cat"))
    assert item_named(store, store.next_item("ann").issued_name, "ann") == item_id


def test_a_name_is_random(store: Store, add_items: Add):
    num = 20
    add_items(num)
    names = []
    while (item := store.next_item("ann")) is not None:
        names.append(item.issued_name)
        store.submit(judge(item, key=f"key-{len(names):04}"))
    assert all(re.fullmatch(r"[\w-]{32}", name) for name in names)  # of 24 bytes
    assert len({name[:6] for name in names}) == num  # two of 20 share 36 bits once in 4e8 tests


def test_whatever_is_no_name_of_ones_own_is_refused_in_the_same_words(store: Store, add_items: Add):
    shown, other = add_items(2, overlap=2)
    mine, theirs = (store.next_item(name) for name in ("ann", "bob"))
    image_id = store.image_for_token(mine.tokens[0], "ann").stem
    others = (shown, other, image_id, mine.tokens[1], theirs.issued_name, "", "0" * 64)
    said = set()
    for name in others:
        with pytest.raises(StoreError) as refused:
            item_named(store, name, "ann")
        said.add(str(refused.value))
    assert said == {"item: not issued to annotator 'ann'; ask for the next one"}
