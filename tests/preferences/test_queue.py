from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from provenances import provenance

from imgalign.diffusion.generate import ImageGenerator
from imgalign.preferences.queue import known_candidates, queue_candidates
from imgalign.preferences.records import Generated, Provenance, SamplerSettings
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples, stored_images


class Painter(ImageGenerator):
    """Paints images of one colour, chosen by the prompt's letters: equal letters, equal images."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []

    def provenances(
        self, prompts: Sequence[str], *, seeds: Sequence[int], **_: Any
    ) -> list[Provenance]:
        both = zip(prompts, seeds, strict=True)
        return [provenance(prompt=prompt, seed=seed) for prompt, seed in both]

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int], **_: Any
    ) -> Iterator[Generated]:
        for prompt, seed in zip(prompts, seeds, strict=True):
            self.made.append((prompt, seed))
            letter = prompt[seed % len(prompt)]
            image = Image.new("RGB", (8, 8), (ord(letter), 0, 0))
            yield Generated(image=image, provenance=provenance(prompt=prompt, seed=seed))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "imgalign.db") as store:
        store.add_annotator("ann")
        yield store


def test_equal_candidates_are_one_and_stop_nothing(store: Store):
    found = queue_candidates(
        store,
        Painter(),
        ["abca", "zzzz", "abcd"],
        per_prompt=4,
        first_seed=0,
        settings=SamplerSettings(num_inference_steps=1),
    )
    assert (len(found.item_ids), found.num_equal, found.without) == (2, 4, ["zzzz"])
    assert found.lines() == [
        "2 items are queued",
        "4 images are equal to another of their prompt: left out",
        "without an item, because all their images are equal: 1 prompt, the first 'zzzz'",
    ]
    shown = []
    while item := store.next_item("ann", holding=[item_id for item_id, _ in shown]):
        shown.append((item.item_id, len(item.tokens)))
    assert [count for _, count in shown] == [3, 4]


ONE_STEP = SamplerSettings(num_inference_steps=1)


class Stopped(Exception):  # noqa: N818  # stands for a kill
    pass


def test_going_on_makes_only_what_is_missing_and_queues_the_same_items(store: Store):
    prompts = ["abcd", "efgh", "ijkl"]
    wanted: dict[str, Any] = {"per_prompt": 2, "first_seed": 5, "settings": ONE_STEP}
    first = Painter()

    def stop(item_id: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        queue_candidates(store, first, prompts, **wanted, on_item=stop)
    assert first.made == [("abcd", 5), ("abcd", 6)]

    again = Painter()
    known = known_candidates(store, again, prompts, **wanted)
    assert [image is not None for image in known] == [True, True, False, False, False, False]
    ids: list[str] = []
    found = queue_candidates(store, again, prompts, **wanted, known=known, on_item=ids.append)
    assert again.made == [("efgh", 7), ("efgh", 8), ("ijkl", 9), ("ijkl", 10)]
    assert (found.num_made, found.item_ids) == (4, ids)
    assert queue_candidates(store, Painter(), prompts, **wanted).item_ids == ids
    assert [each.prompt for each in item_samples(store, ids)] == prompts


def test_an_image_made_otherwise_or_gone_from_disk_is_made_again(store: Store):
    queue_candidates(store, Painter(), ["abcd"], per_prompt=2, first_seed=0, settings=ONE_STEP)
    made = [provenance(prompt="abcd", seed=seed) for seed in (0, 1)]
    first, second = stored_images(store, made)
    assert first
    assert second
    others = [
        provenance(prompt="abcd", seed=0, steps=99),
        provenance(prompt="abcd", seed=0, model="another"),
        provenance(prompt="abcd", seed=2),
    ]
    assert stored_images(store, others) == [None, None, None]
    store.image_path(first).unlink()
    assert stored_images(store, made) == [None, second]
    assert stored_images(store, []) == []


def test_items_are_shown_in_the_order_asked_for_and_unknown_ones_left_out(store: Store):
    ids = queue_candidates(
        store, Painter(), ["abcd", "efgh"], per_prompt=3, first_seed=0, settings=ONE_STEP
    ).item_ids
    shown = item_samples(store, [ids[1], "f" * 64, ids[0]])
    assert [(each.item_id, each.prompt, each.samples) for each in shown] == [
        (ids[1], "efgh", "images"),
        (ids[0], "abcd", "images"),
    ]
    assert all(len(each.sample_ids) == 3 for each in shown)
