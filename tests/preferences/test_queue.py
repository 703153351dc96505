from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from provenances import provenance

from imgalign.diffusion.generate import ImageGenerator
from imgalign.preferences.queue import queue_candidates
from imgalign.preferences.records import Generated, SamplerSettings
from imgalign.preferences.store import Store


class Painter(ImageGenerator):
    """Paints images of one colour, chosen by the prompt's letters: equal letters, equal images."""

    def __init__(self) -> None: ...

    def generate(
        self, prompts: Sequence[str], *, seeds: Sequence[int], **_: Any
    ) -> Iterator[Generated]:
        for prompt, seed in zip(prompts, seeds, strict=True):
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
        "1 prompts have no item, all their images are equal: 'zzzz'",
    ]
    shown = []
    while item := store.next_item("ann", holding=[item_id for item_id, _ in shown]):
        shown.append((item.item_id, len(item.tokens)))
    assert [count for _, count in shown] == [3, 4]
