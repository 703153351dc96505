"""The Generate page draws prompts and their rewrites, and sends both for what was asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from policies import language
from submissions import judge
from tiny_language import LETTERS, build_tokenizer, write_language_model

from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import InputError
from imgalign.language.locking import lost_words
from imgalign.preferences.records import SamplerSettings
from imgalign.preferences.store import Store
from ui import generation, image_request, sending
from ui.runs import Runs
from ui.shelf import Shelf

PROMPTS = "a red house\nthat boat"
"""The storybook's model rewrites the first, and never writes "that"."""


@pytest.fixture(scope="module")
def drawn(tiny_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """A shelf with the images of PROMPTS and their rewrites, and the page's view of them."""
    shelf, runs = Shelf(), Runs(tmp_path_factory.mktemp("runs"))
    request = image_request.requested(
        "", PROMPTS, 5, 2, 3, 1.0, rewriter=image_request.SHIPPED, lock=" house, that "
    )
    views = list(
        generation.generate(
            request,
            model=str(tiny_pipeline_folder),
            runs=runs,
            shelf=shelf,
            loaded=generation.LoadedModels(),
        )
    )
    assert [view["doing"] for view in views[:2]] == [
        "Loading the base model",
        "Rewriting the prompts",
    ]
    return shelf, json.loads(json.dumps(views[-1]))


def test_a_prompt_and_its_rewrite_have_the_same_seeds(drawn: Any, tiny_pipeline_folder: Path):
    shelf, value = drawn
    assert (value["done"], value["total"]) == (8, 8)
    assert [row["name"] for row in value["rows"]] == ["Base", "Base, rewritten"]
    first, second = value["groups"]
    text = first["rewrite"]["text"]
    assert first["rewrite"]["changed"]
    assert lost_words(("house",), text) == ()
    parts = first["rewrite"]["difference"]
    assert "".join(words for kind, words in parts if kind != "removed") == text
    generator = ImageGenerator(str(tiny_pipeline_folder))
    settings = SamplerSettings(num_inference_steps=3)
    for row, prompt in (("base", "a red house"), ("base_rewritten", text)):
        kept = [shelf.get(cell[row]).provenance for cell in first["seeds"]]
        assert [(each.prompt, each.seed) for each in kept] == [(prompt, 5), (prompt, 6)]
        asked = None if row == "base" else ("a red house", "storybook")
        found = {each.original_prompt and (each.original_prompt, each.rewriter) for each in kept}
        assert found == {asked}
    made = list(generator.generate([text] * 2, seeds=[5, 6], settings=settings))
    assert [each.provenance.prompt for each in made] == [text, text]
    assert not second["rewrite"]["changed"]
    assert any("stays as it is" in line for line in second["rewrite"]["said"])
    assert all(cell["base"] == cell["base_rewritten"] for cell in second["seeds"])
    assert generation.restore(shelf, json.dumps(value)) == value


def test_plain_and_rewritten_are_ranked_for_what_was_asked(drawn: Any, store: Store):
    shelf, value = drawn
    assert sending.send(store, shelf, value, how=sending.REWRITES, overlap=1).new == 2
    store.add_annotator("Ada")
    prompts = []
    while item := store.next_item("Ada"):
        ids = [store.image_for_token(token, "Ada").stem for token in item.tokens]
        made = [store.provenance(each) for each in ids]
        assert {each.original_prompt for each in made} == {None, "a red house"}
        assert len({each.seed for each in made}) == 1
        prompts.append(item.prompt)
        store.submit(judge(item, "Ada"))
    assert prompts == ["a red house"] * 2


def test_all_of_a_prompt_may_be_ranked_together_and_pairs_need_both_sides(drawn: Any, store: Store):
    shelf, value = drawn
    assert sending.send(store, shelf, value, how=sending.TOGETHER, overlap=1).new == 2
    with pytest.raises(InputError, match="choose a checkpoint and generate first"):
        sending.send(store, shelf, value, how=sending.PAIRS, overlap=1)
    plain = {**value, "rows": value["rows"][:1]}
    with pytest.raises(InputError, match="switch rewriting on and generate first"):
        sending.send(store, shelf, plain, how=sending.REWRITES, overlap=1)


def test_pairs_of_base_and_aligned_are_of_one_text():
    sides = [generation.Side(key="base", name="Base")]
    sides.append(generation.Side(key="aligned", name="Aligned", checkpoint="a/step-000010"))
    rows = [row for side in sides for row in side.rows(rewriting=True)]
    cell = {"seed": 0, "base": "b", "base_rewritten": "br", "aligned": "a"}
    cell["aligned_rewritten"] = "ar"
    assert sending._candidates(rows, [cell], sending.PAIRS) == [["b", "a"], ["br", "ar"]]
    assert sending._candidates(rows, [cell], sending.REWRITES) == [["b", "br"], ["a", "ar"]]
    assert sending._candidates(rows, [cell], sending.TOGETHER) == [["b", "br", "a", "ar"]]


def test_language_runs_rewrite_and_are_not_compared_with_an_image_model(tmp_path: Path):
    folder = write_language_model(tmp_path / "model", "llama", build_tokenizer(letters=LETTERS))
    run = tmp_path / "runs" / "writer"
    for number, train in ((10, "lora"), (20, "full")):
        step = run / f"step-{number:06d}"
        step.mkdir(parents=True)
        language(folder, train=train).save(step)
    (run / "config.yaml").write_text(f"policy: {{kind: language, model: {folder}}}\n")
    (run / "metrics.jsonl").write_text('{"step": 20}\n')
    status = {"state": "finished", "pid": 1, "step": 20, "total": 20}
    (run / "status.json").write_text(json.dumps(status))
    runs = Runs(tmp_path / "runs")
    assert image_request.checkpoints(runs, "storybook") == [("Base model only (storybook)", "")]
    assert image_request.rewriters(runs) == [
        ("No", ""),
        ("With the storybook's model", "storybook"),
        ("writer, iteration 20", "writer/step-000020"),
        ("writer, iteration 10", "writer/step-000010"),
    ]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"rewriter": "gone/step-000010"}, "no such run"),
        ({"rewriter": "storybook", "lock": "hosue"}, "'hosue' is not in the prompt 'a house'"),
        ({"rewriter": "storybook", "lock": "!"}, "lock: expected words separated by commas"),
    ],
)
def test_a_rewriter_or_a_word_that_is_not_there_is_said(
    tiny_pipeline_folder: Path, tmp_path: Path, form: dict[str, Any], message: str
):
    request = image_request.requested("", "a house", 5, 1, 3, 1.0, **form)
    with pytest.raises(InputError, match=message):
        list(
            generation.generate(
                request,
                model=str(tiny_pipeline_folder),
                runs=Runs(tmp_path / "runs"),
                shelf=Shelf(),
                loaded=generation.LoadedModels(),
            )
        )


def test_rewritten_images_count_among_the_most_at_a_time():
    assert image_request.requested("", "a house", 0, 128, 20, 1.0)
    with pytest.raises(InputError, match="256 images: expected at most 128"):
        image_request.requested("", "a house", 0, 128, 20, 1.0, rewriter="storybook")
