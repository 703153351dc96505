import io
import json
import math
import random
import shutil

import pytest
import torch
from PIL import Image, ImageChops
from provenances import provenance
from submissions import judge

from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.generate import ImageGenerator
from imgalign.diffusion.loading import load_pipeline
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.environment import choose_device
from imgalign.errors import ImgalignError, InputError
from imgalign.evaluate.votes import count_votes
from imgalign.preferences.records import SamplerSettings
from ui import generation, image_request, sending
from ui.pages.generate import nothing_to_compare
from ui.runs import Runs
from ui.shelf import Shelf

PROMPTS = "a red house\na blue boat"


@pytest.fixture(scope="module")
def run_folder(tiny_pipeline_folder, tmp_path_factory):
    """A folder of runs with one finished run of the tiny model."""
    runs = tmp_path_factory.mktemp("runs")
    pipeline = load_pipeline(str(tiny_pipeline_folder), device=choose_device("cpu"))
    policy = DiffusionPolicy(
        pipeline, LoraDiffusionConfig(num_inference_steps=3, lora_rank=2), seed=0
    )
    with torch.no_grad():
        for index, weight in enumerate(policy.trainable_parameters()):
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(index))
            weight.add_(0.3 * noise)
    step = runs / "tiny" / "step-000010"
    step.mkdir(parents=True)
    policy.save(step)
    (runs / "tiny" / "config.yaml").write_text(f"policy: {{model: {tiny_pipeline_folder}}}\n")
    (runs / "tiny" / "best.json").write_text('{"checkpoint": "step-000010"}')
    (runs / "tiny" / "prompts.json").write_text('{"training": [], "held_out": []}')
    (runs / "tiny" / "metrics.jsonl").write_text('{"step": 10}\n')
    status = {"state": "finished", "pid": 1, "step": 10, "total": 10}
    (runs / "tiny" / "status.json").write_text(json.dumps(status))
    return runs


def test_without_a_checkpoint_the_page_says_so_and_where_runs_are_started(run_folder, tmp_path):
    said = nothing_to_compare(Runs(tmp_path / "runs"), "storybook")
    assert "There is no run yet" in said
    assert '<a href="train">Start one on Train</a>' in said
    (tmp_path / "runs" / "failed").mkdir(parents=True)
    status = {"state": "failed", "pid": 1, "step": 0, "total": 10}
    (tmp_path / "runs" / "failed" / "status.json").write_text(json.dumps(status))
    said = nothing_to_compare(Runs(tmp_path / "runs"), "storybook")
    assert "No run has a checkpoint to show yet" in said
    assert nothing_to_compare(Runs(run_folder), "storybook") == ""


def make(run_folder, model, shelf, *, adapter="tiny/step-000010", prompts=PROMPTS, count=2):
    request = image_request.requested(adapter, prompts, 5, count, 3, 1.0)
    views = list(
        generation.generate(
            request,
            model=model,
            runs=Runs(run_folder),
            shelf=shelf,
            loaded=generation.LoadedModels(),
        )
    )
    return json.loads(json.dumps(views[-1])), views


def pixels(shelf, image_id):
    return Image.open(io.BytesIO(shelf.get(image_id).png)).convert("RGB")


def same(one, other):
    return ImageChops.difference(one, other).getbbox() is None


def test_base_and_aligned_come_from_the_same_seeds_and_are_kept_lossless(
    run_folder, tiny_pipeline_folder
):
    shelf = Shelf()
    value, views = make(run_folder, str(tiny_pipeline_folder), shelf)
    assert (value["done"], value["total"]) == (8, 8)
    assert [row["name"] for row in value["rows"]] == ["Base", "tiny, iteration 10"]
    assert list(dict.fromkeys(view["done"] for view in views)) == list(range(9))
    adapters = {"base": None, "aligned": run_folder / "tiny" / "step-000010"}
    for row, adapter in adapters.items():
        expected = ImageGenerator(str(tiny_pipeline_folder), adapter).generate(
            ["a red house", "a red house", "a blue boat", "a blue boat"],
            seeds=[5, 6, 5, 6],
            settings=SamplerSettings(num_inference_steps=3),
        )
        cells = [cell for group in value["groups"] for cell in group["seeds"]]
        for cell, made in zip(cells, expected, strict=True):
            assert same(pixels(shelf, cell[row]), made.image)
            kept = shelf.get(cell[row]).provenance
            assert (kept.seed, kept.adapter_hash) == (cell["seed"], made.provenance.adapter_hash)
    first = value["groups"][0]["seeds"][0]
    assert not same(pixels(shelf, first["base"]), pixels(shelf, first["aligned"]))


def test_base_and_aligned_are_one_model_in_memory(run_folder, tiny_pipeline_folder, tmp_path):
    loaded, model = generation.LoadedModels(), str(tiny_pipeline_folder)
    base = loaded.get(model, None).family.network
    aligned = loaded.get(model, run_folder / "tiny" / "step-000010")
    assert aligned.family.network is base
    assert aligned.adapter_hash is not None
    assert loaded.get(model, None).adapter_hash is None
    other = shutil.copytree(tiny_pipeline_folder, tmp_path / "other")
    assert loaded.get(str(other), None).family.network is not base


def test_the_base_model_alone_makes_one_row(run_folder, tiny_pipeline_folder):
    shelf = Shelf()
    value, _ = make(run_folder, str(tiny_pipeline_folder), shelf, adapter="", prompts="a tree")
    assert (value["done"], [row["name"] for row in value["rows"]]) == (2, ["Base"])
    assert value["groups"][0]["seeds"][0].keys() == {"seed", "base"}


def test_words_to_keep_may_come_as_nothing_from_a_field_that_is_hidden():
    form = ("", "a fox", 1, 2, 20, 1.0, image_request.NO_REWRITER)
    assert image_request.requested(*form, None) == image_request.requested(*form, " ")


def test_a_negative_prompt_is_drawn_with_and_needs_guidance():
    found = image_request.requested("", "a fox", 1, 2, 20, 3.0, negative="  blurred\n dark ")
    assert found.sampler.negative_prompt == "blurred dark"
    with pytest.raises(InputError, match=r"negative prompt: without effect while guidance is 1"):
        image_request.requested("", "a fox", 1, 2, 20, 1.0, negative="blurred")
    for empty in (None, "", " \n"):
        assert image_request.requested(
            "", "a fox", 1, 2, 20, 1.0, negative=empty
        ) == image_request.requested("", "a fox", 1, 2, 20, 1.0)


def test_every_checkpoint_on_disk_is_offered(run_folder):
    offered = image_request.checkpoints(Runs(run_folder), "storybook")
    assert offered == [
        ("Base model only (storybook)", ""),
        ("tiny, iteration 10 (best)", "tiny/step-000010"),
    ]


def test_a_checkpoint_that_is_gone_or_outside_is_refused(run_folder, tiny_pipeline_folder):
    for value in ("tiny/step-000099", "tiny/../../etc", "../tiny/step-000010", "tiny"):
        with pytest.raises(InputError):
            make(run_folder, str(tiny_pipeline_folder), Shelf(), adapter=value)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (("", " \n ", 0, 4, 20, 1.0), "write at least one"),
        ((None, " ", 0, 4, 20, 1.0), "write at least one"),
        ((None, "a fox", 0, 4, 20, 1.0), "still loading; press Generate again"),
        (("", "a fox", 0, 4, 20, 1.0, None), "still loading; press Generate again"),
        (("", "a fox", -1, 4, 20, 1.0), "first seed"),
        (("", "a fox", 0, 0, 20, 1.0), "images each"),
        (("", "a fox", 0, None, 20, 1.0), "images each: fill in a number"),
        (("", "a fox", " ", 4, None, None), "first seed, steps, guidance: fill in a number"),
        (("x", "a fox", 0, 100, 20, 1.0), "at most 128"),
        (("x", "a fox", 0, 200, 20, 1.0), "images each"),
        (("", "a fox", 2.0**64, 1, 20, 1.0), "first seed"),
        (("", "a fox", 2**53 - 1, 4, 20, 1.0), "first seed"),
        (("", "a fox", math.inf, 4, 20, 1.0), "first seed"),
        (("", "a fox", math.nan, 4, 20, 1.0), "first seed"),
        (("", "a fox", 0.5, 4, 20, 1.0), "first seed"),
        (("", "a fox", str(2**64), 4, 20, 1.0), "got 18446744073709551616"),
        (("", "a fox", str(2**53 + 1), 4, 20, 1.0), "got 9007199254740993"),
        (("", "a fox", "0.5", 4, 20, 1.0), "whole number from 0 to 9007199254740987, got 0.5"),
        (("", "a fox", "seven", 4, 20, 1.0), "first seed: .* got seven"),
        (("", "a fox", "9" * 5000, 4, 20, 1.0), "got 9{40} …$"),
        (("", "a fox", 0, 4.5, 20, 1.0), "images each: .* got 4.5"),
        (("", "a fox", 0, 4, 0, 1.0), "steps"),
        (("", "a fox", 0, 4, 10**9, 1.0), "steps"),
        (("", "a fox", 0, 4, 20, math.nan), "guidance"),
        (("", "a fox", 0, 4, 20, 0.5), "guidance"),
    ],
)
def test_a_form_that_cannot_be_made_says_what_to_change(form, message):
    with pytest.raises(InputError, match=message):
        image_request.requested(*form)


def shelved(shelf, number, *, seed):
    made = provenance(model="tiny", prompt="a red house", seed=seed, steps=3)
    return shelf.put(Image.new("RGB", (8, 8), (number, 0, 0)), made)


def shown_value(shelf, numbers, *, prompt="a red house"):
    """What the page shows; `numbers` are (base, aligned) colours per seed."""
    seeds = [
        {
            "seed": seed,
            "base": shelved(shelf, base, seed=seed),
            **({} if aligned is None else {"aligned": shelved(shelf, aligned, seed=seed)}),
        }
        for seed, (base, aligned) in enumerate(numbers)
    ]
    rows = [{"key": "base", "name": "Base", "checkpoint": "", "rewritten": False}]
    if numbers[0][1] is not None:
        aligned = {"name": "tiny, iteration 10", "checkpoint": "tiny/step-000010"}
        rows.append({"key": "aligned", "rewritten": False, **aligned})
    group = {"prompt": prompt, "unread": "", "rewrite": None, "seeds": seeds}
    return {"rows": rows, "groups": [group], "rewriter": ""}


def queued(store, annotator="Ada"):
    """Seeds of the candidates of each item that waits, by item."""
    store.add_annotator(annotator)
    held, found = [], []
    while item := store.next_item(annotator, holding=held):
        held.append(item.item_id)
        ids = [store.image_for_token(token, annotator).stem for token in item.tokens]
        found.append(sorted(store.provenance(image_id).seed for image_id in ids))
    return found


def test_pairs_are_of_one_seed_and_queued_in_random_order(store, monkeypatch):
    monkeypatch.setattr("random.SystemRandom", lambda: random.Random(1))
    shelf = Shelf()
    value = shown_value(shelf, [(number, number + 1) for number in range(1, 17, 2)])
    assert sending.send(store, shelf, value, how=sending.PAIRS, overlap=1).new == 8
    found = queued(store)
    assert sorted(found) == [[seed, seed] for seed in range(8)]
    assert found != sorted(found)


def test_together_base_and_aligned_of_a_seed_stay_in_one_group(store):
    shelf = Shelf()
    value = shown_value(shelf, [(1, 2), (3, 4), (5, 6), (7, 8)])
    assert sending.send(store, shelf, value, how=sending.TOGETHER, overlap=1).new == 2
    assert queued(store) == [[0, 0, 1, 1], [2, 2, 3, 3]]


@pytest.mark.parametrize(
    ("seeds", "aligned", "expected"),
    [
        (5, False, [[0, 1, 2, 3, 4]]),
        (6, False, [[0, 1, 2, 3, 4, 5]]),
        (10, False, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]),
        (3, True, [[0, 0, 1, 1, 2, 2]]),
        (5, True, [[0, 0, 1, 1], [2, 2, 3, 3, 4, 4]]),
    ],
)
def test_images_that_are_left_over_are_shared_out_and_seeds_stay_whole(
    store, seeds, aligned, expected
):
    shelf = Shelf()
    value = shown_value(shelf, [(2 * n, 2 * n + 1 if aligned else None) for n in range(seeds)])
    sent = sending.send(store, shelf, value, how=sending.TOGETHER, overlap=1)
    assert sent == sending.Sent(new=len(expected), known=0, project="default")
    assert queued(store) == expected


def test_equal_images_are_shown_once_and_nothing_to_choose_is_not_queued(store):
    shelf = Shelf()
    value = shown_value(shelf, [(1, 1), (2, 3)])
    assert sending.send(store, shelf, value, how=sending.PAIRS, overlap=1).new == 1
    assert queued(store) == [[1, 1]]


def test_what_is_sent_keeps_how_it_was_made(store):
    shelf = Shelf()
    value = shown_value(shelf, [(1, 2)])
    sending.send(store, shelf, value, how=sending.PAIRS, overlap=1)
    store.add_annotator("Ada")
    item = store.next_item("Ada")
    path = store.image_for_token(item.tokens[0], "Ada")
    original = {shelf.get(value["groups"][0]["seeds"][0][row]).png for row in ("base", "aligned")}
    assert path.read_bytes() in original
    assert store.provenance(path.stem).scheduler == "ddim"


def test_when_an_image_is_gone_nothing_is_stored(store):
    shelf = Shelf()
    value = shown_value(shelf, [(1, 2), (3, 4)])
    value["groups"][0]["seeds"][1]["aligned"] = "gone"
    with pytest.raises(InputError, match="not kept any more"):
        sending.send(store, shelf, value, how=sending.PAIRS, overlap=1)
    assert queued(store) == []


def test_pairs_need_a_checkpoint_and_anything_needs_images(store):
    shelf = Shelf()
    value = shown_value(shelf, [(1, None)])
    with pytest.raises(InputError, match="choose a checkpoint"):
        sending.send(store, shelf, value, how=sending.PAIRS, overlap=1)
    with pytest.raises(InputError, match="generate images first"):
        sending.send(store, shelf, None, how=sending.PAIRS, overlap=1)


def test_a_reload_shows_the_images_again_while_the_server_has_them():
    shelf = Shelf()
    value = shown_value(shelf, [(1, 2)])
    assert generation.restore(shelf, json.dumps(value)) == value
    assert generation.restore(Shelf(), json.dumps(value)) is None
    for damaged in ("", "[]", "{}", '{"groups": 3}', '{"groups": [{"seeds": [{"base": []}]}]}'):
        assert generation.restore(shelf, damaged) is None


def test_the_shelf_drops_the_oldest_when_it_is_full():
    shelf = Shelf(most_bytes=1)
    first, second = (shelved(shelf, n, seed=n) for n in range(2))
    assert not shelf.has(first)
    assert shelf.has(second)


@pytest.mark.parametrize("annotators", [None, 0, 1.5, 10**6, math.nan])
def test_a_number_of_annotators_that_cannot_be_is_refused(store, annotators):
    shelf = Shelf()
    value = shown_value(shelf, [(1, 2)])
    with pytest.raises(InputError, match="annotators per item"):
        sending.send(store, shelf, value, how=sending.PAIRS, overlap=annotators)
    assert queued(store) == []


def test_a_damaged_run_leaves_the_checkpoints_of_others(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "runs")
    shutil.copytree(run_folder / "tiny", tmp_path / "runs" / "my run")
    shutil.copytree(run_folder / "tiny", tmp_path / "runs" / "bad")
    (tmp_path / "runs" / "bad" / "status.json").write_text("{")
    offered = [
        value for _, value in image_request.checkpoints(Runs(tmp_path / "runs"), "storybook")
    ]
    assert sorted(offered) == ["", "my run/step-000010", "tiny/step-000010"]


def test_a_run_whose_settings_are_damaged_is_not_drawn_with_another_model(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "runs")
    (tmp_path / "runs" / "tiny" / "config.yaml").write_text("model: [")
    with pytest.raises(ImgalignError, match=r"config\.yaml"):
        make(tmp_path / "runs", "storybook", Shelf())


def test_pairs_that_were_sent_and_ranked_are_votes_on_the_checkpoint(
    run_folder, tiny_pipeline_folder, store, tmp_path
):
    shelf, step = Shelf(), run_folder / "tiny" / "step-000010"
    value, _ = make(run_folder, str(tiny_pipeline_folder), shelf)
    assert sending.send(store, shelf, value, how=sending.PAIRS, overlap=1).new == 4
    store.add_annotator("Ada")
    aligned_first = 0
    while item := store.next_item("Ada"):
        shown = [store.image_for_token(token, "Ada").stem for token in item.tokens]
        aligned_first += store.provenance(shown[0]).adapter_hash is not None
        store.submit(judge(item, "Ada"))
    found = count_votes(step, store, command="x", out=tmp_path).people
    assert (found.num_votes, found.num_prompts, found.num_annotators) == (4, 2, 1)
    assert found.num_wins == aligned_first
