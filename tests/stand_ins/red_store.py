"""A store of images of one colour each, in which somebody who likes red ranked everything."""

from pathlib import Path

import torch
from provenances import provenance

from imgalign.images import png, to_image
from imgalign.preferences.records import Submission, as_positions, tie_groups
from imgalign.preferences.store import Store

NUM_PROMPTS, PER_PROMPT = 30, 3


def write_red_store(folder: Path) -> tuple[str, ...]:
    """Options that name it."""
    url = f"sqlite:///{folder}/imgalign.db"
    generator = torch.Generator().manual_seed(0)
    redness: dict[str, float] = {}
    of_item: dict[str, list[float]] = {}
    with Store.open(url, images=folder / "images", seed=0) as store:
        for number in range(NUM_PROMPTS):
            prompt, ids = f"a red fox {number}", list[str]()
            for seed in range(PER_PROMPT):
                colour = torch.rand(3, 1, 1, generator=generator)
                made = provenance(prompt=prompt, seed=seed, width=16, height=16)
                ids.append(store.add_image(png(to_image(colour.expand(3, 16, 16))), made))
                redness[ids[-1]] = float(colour[0] - colour[1:].mean())
            item = store.add_item(prompt, ids, source="test")
            of_item[item] = [redness[image] for image in ids]
        store.add_annotator("ann")
        while (shown := store.next_item("ann")) is not None:
            store.submit(
                Submission(
                    key=shown.item_id,
                    item_id=shown.item_id,
                    annotator="ann",
                    ranking=as_positions(
                        tie_groups(of_item[shown.item_id]),
                        store.display_order(shown.item_id, "ann"),
                    ),
                )
            )
    return "--database", url, "--images", str(folder / "images")
