"""Images of rewritten prompts know what was asked for, through the store and files."""

import json
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from provenances import provenance
from submissions import judge

from imgalign.images import png, write_png
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.foreign.image_queue import group_images, queue_groups
from imgalign.preferences.makers import read_makers
from imgalign.preferences.queries import provenance_row
from imgalign.preferences.records import Generated
from imgalign.preferences.store import Store

PLAIN = provenance(prompt="a cat")
REWRITTEN = provenance(
    prompt="a red cat in the snow", original_prompt="a cat", rewriter="runs/rewriter"
)


def image(shade: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (shade, 0, 0))


def test_an_image_says_what_was_asked_for_where_that_is_another_text():
    made = Generated(image=image(1), provenance=provenance(prompt="a red cat"), unread="x")
    asked = made.asked_as("a cat", rewriter="storybook")
    facts = asked.provenance
    assert (facts.prompt, facts.original_prompt, facts.rewriter) == (
        *("a red cat", "a cat", "storybook"),
    )
    assert (asked.image, asked.unread) == (made.image, "x")
    assert made.asked_as("a red cat", rewriter="storybook") is made


def test_the_store_keeps_both_prompts_and_an_export_takes_them_along(store: Store, tmp_path: Path):
    ids = [store.add_image(png(image(n)), facts) for n, facts in enumerate((PLAIN, REWRITTEN))]
    store.add_item("a cat", ids, source="test")
    store.submit(judge(store.next_item("ann"), "ann"))
    assert [store.provenance(each) for each in ids] == [PLAIN, REWRITTEN]
    export_rankings(store, tmp_path / "rankings.jsonl")
    other = Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "others")
    import_rankings(other, tmp_path / "rankings.jsonl", images=store.images.root)
    assert [other.provenance(each) for each in ids] == [PLAIN, REWRITTEN]


def test_an_export_from_before_has_no_rewritten_prompts(store: Store, tmp_path: Path):
    ids = [store.add_image(png(image(n)), provenance(seed=n)) for n in range(2)]
    store.add_item("a cat", ids, source="test")
    store.submit(judge(store.next_item("ann"), "ann"))
    path = tmp_path / "rankings.jsonl"
    export_rankings(store, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.pop("original_prompt", None)
        line.pop("rewriter", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    other = Store.open(f"sqlite:///{tmp_path / 'other.db'}", images=tmp_path / "others")
    import_rankings(other, path, images=store.images.root)
    assert [other.provenance(each).original_prompt for each in ids] == [None, None]


def test_a_plain_provenance_is_known_by_what_it_was_known_by_before():
    """So an image that is added again has no second row in a database from before."""
    digest = "b10b10a7133795c686ca822d15bdf2c5a91ca07bddae3d8eebac8b6d443b7bbe"
    assert provenance_row(provenance())["digest"] == digest
    assert (
        provenance_row(REWRITTEN)["digest"]
        != provenance_row(provenance(prompt=REWRITTEN.prompt))["digest"]
    )


def test_a_model_with_rewritten_prompts_is_another_maker_than_the_model_alone(store: Store):
    ids = [store.add_image(png(image(n)), facts) for n, facts in enumerate((PLAIN, REWRITTEN))]
    found = read_makers(store)
    assert [found.names[found.of_image[each]] for each in ids] == ["m", "runs/rewriter > m"]


def test_images_of_a_rewritten_prompt_are_queued_for_what_was_asked(store: Store, tmp_path: Path):
    folder = tmp_path / "generated"
    folder.mkdir()
    for number, facts in enumerate((PLAIN, REWRITTEN)):
        path = folder / f"{number:05d}-0.png"
        write_png(image(number), path)
        path.with_suffix(".json").write_text(json.dumps(asdict(facts), default=str))
    queued = queue_groups(store, group_images(folder, per_prompt=4))
    assert (len(queued.item_ids), queued.num_images) == (1, 2)
    assert store.next_item("ann").prompt == "a cat"
