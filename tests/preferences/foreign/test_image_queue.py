"""Images made elsewhere become items to rank, with what is known of how they were made."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from image_folders import image, put
from PIL import Image
from provenances import provenance
from submissions import judge

from imgalign.errors import InputError
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.foreign.image_queue import (
    QueuedImages,
    evenly,
    group_images,
    queue_groups,
)
from imgalign.preferences.makers import read_makers
from imgalign.preferences.store import Store

A1111 = (
    "{prompt}\nNegative prompt: blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: {seed}, Model: m"
)


def queue_images(store: Store, folder: Path, **settings: Any) -> QueuedImages:
    """Queue the images below a folder, as `imgalign candidates --from` does."""
    return queue_groups(store, group_images(folder, **settings))


def sizes(store: Store, item_ids: list[str]) -> list[tuple[str, int]]:
    """Prompt and number of images of each item."""
    found = []
    for _ in item_ids:
        item = store.next_item("ann")
        assert item is not None
        found.append((item.prompt, len(item.tokens)))
        store.submit(judge(item))
    return found


def test_images_of_one_prompt_are_candidates_of_one_item(store: Store, tmp_path: Path):
    for seed in range(3):
        text = A1111.format(prompt="A red  Fox" if seed else "a red fox", seed=seed)
        put(tmp_path / "in" / f"{seed}.png", seed, parameters=text)
    queued = queue_images(store, tmp_path / "in", per_prompt=4)
    assert queued.lines() == ["1 item is queued, of 3 images"]
    assert sizes(store, queued.item_ids) == [("a red fox", 3)]
    (ranking,) = store.rankings()
    for seed, image_id in enumerate(ranking.sample_ids):
        original = (tmp_path / "in" / f"{seed}.png").read_bytes()
        assert store.image_path(image_id).read_bytes() == original
        facts = store.provenance(image_id)
        assert (facts.seed, facts.steps, facts.guidance_scale) == (seed, 20, 7.0)
        assert (facts.model, facts.scheduler, facts.negative_prompt) == ("m", "Euler a", "blurry")
        assert (facts.width, facts.height, facts.imgalign_version) == (8, 8, "elsewhere")
        assert (facts.eta, facts.dtype, facts.adapter) == (-1.0, "unknown", None)


def test_what_nobody_knows_of_an_image_travels_between_stores(store: Store, tmp_path: Path):
    for shade in range(2):
        put(tmp_path / "in" / f"{shade}.png", shade, caption="a cat")
    queue_images(store, tmp_path / "in", per_prompt=4)
    export_rankings(store, tmp_path / "all.jsonl")
    with Store.open(tmp_path / "other.db", images=tmp_path / "others") as other:
        import_rankings(other, tmp_path / "all.jsonl", images=store.images.root)
        (image_id, *_) = [path.stem for path in store.images.root.rglob("*.png")]
        facts = other.provenance(image_id)
        assert facts == store.provenance(image_id)
        assert (facts.model, facts.prompt, facts.scheduler) == ("unknown", "a cat", "unknown")
        assert (facts.seed, facts.steps, facts.guidance_scale) == (-1, -1, -1.0)
        assert set(read_makers(other).names.values()) == {"unknown"}


def test_only_what_may_be_unknown_may_be_negative(store: Store, png):
    for wrong in ({"seed": -2}, {"seed": 2**63}):
        with pytest.raises(InputError, match=r"provenance\.seed"):
            store.add_image(png(1), provenance(**wrong))


def test_a_caption_wins_over_what_is_in_the_file_unless_asked_otherwise(
    store: Store, tmp_path: Path
):
    for shade in range(2):
        text = A1111.format(prompt="in the file", seed=shade)
        put(tmp_path / "in" / f"{shade}.png", shade, caption="beside it\nmore", parameters=text)
    queued = queue_images(store, tmp_path / "in", per_prompt=2)
    assert sizes(store, queued.item_ids) == [("beside it", 2)]
    (ranking,) = store.rankings()
    assert store.provenance(ranking.sample_ids[0]).prompt == "in the file"
    queued = queue_images(store, tmp_path / "in", per_prompt=2, prompts_from="metadata")
    assert sizes(store, queued.item_ids) == [("in the file", 2)]
    put(tmp_path / "in" / "2.png", 2, parameters=A1111.format(prompt="beside it", seed=2))
    queued = queue_images(store, tmp_path / "in", per_prompt=9, prompts_from="captions")
    assert [(each.reason, each.name) for each in queued.left_out] == [("no prompt", "2.png")]


def test_images_without_a_prompt_or_an_equal_are_named(store: Store, tmp_path: Path):
    folder = tmp_path / "in"
    put(folder / "a.png", 1, caption="a cat")
    put(folder / "b.png", 2, caption="A CAT")
    put(folder / "deep" / "c.png", 3)
    put(folder / "d.png", 4, caption="a dog")
    put(folder / "e.png", 1, caption="a cat", comment="other bytes, the same pixels")
    put(folder / "f.png", 5, caption="x").write_bytes(b"not an image")
    queued = queue_images(store, folder, per_prompt=4)
    assert {(each.reason, each.name, each.detail[:8]) for each in queued.left_out} == {
        ("no prompt", "deep/c.png", ""),
        ("only image of its prompt", "d.png", ""),
        ("equal images", "e.png", "as a.png"),
        ("unreadable", "f.png", "expected"),
    }
    assert sizes(store, queued.item_ids) == [("a cat", 2)]


def test_files_that_programs_show_differently_are_converted(store: Store, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8), "red").save(folder / "a.jpg", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 255, 0)).save(folder / "b.png")
    image(3).save(folder / "c.webp", lossless=True)
    put(folder / "d.png", 4)
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text("a cat")
    queued = queue_images(store, folder, per_prompt=4)
    assert queued.lines()[1:] == ["converted to PNG: 3 (a.jpg, b.png, c.webp)"]
    sizes(store, queued.item_ids)
    (ranking,) = store.rankings()
    stored = [Image.open(store.image_path(each)).convert("RGB") for each in ranking.sample_ids]
    assert stored[0].size == (8, 16)
    assert stored[1].getpixel((0, 0)) == (255, 255, 255)
    assert stored[2].getpixel((0, 0)) == (3, 0, 0)


def test_captions_of_several_lines_give_their_first_and_are_named(store: Store, tmp_path: Path):
    put(tmp_path / "a.png", 1, caption="\n a  cat \ncat, whiskers\n")
    put(tmp_path / "b.png", 2, caption="a cat")
    queued = queue_images(store, tmp_path, per_prompt=2)
    assert queued.lines()[1:] == ["only the first line of the caption is used: 1 (a.png)"]
    assert queued.num_images == 2  # of one prompt


def test_many_images_of_a_prompt_are_items_of_even_size(store: Store, tmp_path: Path):
    for shade in range(9):
        put(tmp_path / "in" / f"{shade}.png", shade, caption="a cat")
    queued = queue_images(store, tmp_path / "in", per_prompt=4)
    assert sizes(store, queued.item_ids) == [("a cat", 3)] * 3
    again = queue_images(store, tmp_path / "in", per_prompt=4)
    assert again.item_ids == queued.item_ids
    assert store.next_item("ann") is None


@pytest.mark.parametrize(
    ("count", "most", "expected"), [(2, 4, [2]), (4, 4, [4]), (5, 4, [2, 3]), (3, 2, [1, 2])]
)
def test_groups_differ_by_one_at_most(count: int, most: int, expected: list[int]):
    assert [len(group) for group in evenly(list(range(count)), most)] == expected


def test_images_that_imgalign_made_keep_their_whole_provenance(store: Store, tmp_path: Path):
    made = [provenance(prompt="a fox", seed=seed, eta=0.5, adapter="runs/a") for seed in range(2)]
    made[0] = replace(made[0], dtype="float32")  # before it was recorded, it was this
    for facts in made:
        path = put(tmp_path / "in" / f"0000{facts.seed}-{facts.seed}.png", facts.seed)
        written = asdict(facts)
        if facts.seed == 0:
            del written["dtype"]
        path.with_suffix(".json").write_text(json.dumps(written, default=str))
    queued = queue_images(store, tmp_path / "in", per_prompt=4)
    sizes(store, queued.item_ids)
    (ranking,) = store.rankings()
    assert [store.provenance(each) for each in ranking.sample_ids] == made


@pytest.mark.parametrize("text", ["{", "[]", '{"prompt": "x"}', "[" * 5000])
def test_a_json_file_of_another_kind_beside_an_image_is_nothing(
    store: Store, tmp_path: Path, text: str
):
    for shade in range(2):
        path = put(tmp_path / "in" / f"{shade}.png", shade, caption="a cat")
        path.with_suffix(".json").write_text(text)
    assert len(queue_images(store, tmp_path / "in", per_prompt=2).item_ids) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "0"},
        {"seed": -5},
        {"created_at": "today"},
        {"eta": "x"},
        {"prompt": 3},
        {"steps": "x"},
        {"extra": 1},
        {"created_at": "2026-01-01T00:00:00"},
        {"width": []},
    ],
)
def test_a_record_beside_an_image_with_wrong_values_is_nothing(
    store: Store, tmp_path: Path, wrong: dict[str, object]
):
    for shade in range(2):
        path = put(tmp_path / "in" / f"{shade}.png", shade, caption="a cat")
        facts = asdict(provenance()) | wrong
        path.with_suffix(".json").write_text(json.dumps(facts, default=str))
    queued = queue_images(store, tmp_path / "in", per_prompt=2)
    sizes(store, queued.item_ids)
    assert store.provenance(next(store.rankings()).sample_ids[0]).model == "unknown"


def test_the_model_of_images_that_do_not_name_theirs_can_be_given(store: Store, tmp_path: Path):
    put(tmp_path / "in" / "a.png", 1, parameters=A1111.format(prompt="a cat", seed=1))
    put(tmp_path / "in" / "b.png", 2, caption="a cat")
    queue_images(store, tmp_path / "in", per_prompt=2, model="by hand")
    assert set(read_makers(store).names.values()) == {"m", "by hand"}


def test_nothing_is_stored_where_no_two_images_have_one_prompt(store: Store, tmp_path: Path):
    put(tmp_path / "in" / "a.png", 1, caption="a cat")
    put(tmp_path / "in" / "b.png", 2, caption="a dog")
    with pytest.raises(InputError) as error:
        queue_images(store, tmp_path / "in", per_prompt=2)
    assert str(error.value) == (
        f"{tmp_path / 'in'}: expected several images of one prompt; left out, only image of its "
        "prompt: 2 (a.png, b.png)"
    )
    assert list(store.images.root.iterdir()) == []
