"""Claims: texts of files and of the storybook are learned from as they are, a run keeps them, and
what cannot be learned from is one clear line."""

from functools import partial
from pathlib import Path

import pytest
import torch
from json_lines import lines
from PIL import Image
from pydantic import ValidationError

from imgalign.config import load_config
from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.policy import LikelihoodPolicy
from imgalign.preferences.records import Submission, TextProvenance, as_positions
from imgalign.preferences.store import Store
from imgalign.prompts import Prompts
from imgalign.runs.world import Alone
from imgalign.train.config import TrainConfig
from imgalign.train.data.examples import (
    keep_examples,
    kept_examples,
    refuse_other_examples,
    refuse_other_kind,
)
from imgalign.train.data.judged import LEFT_OUT
from imgalign.train.data.kept_texts import TEXTS, text_key
from imgalign.train.data.rankings import RankingsConfig
from imgalign.train.data.source import HeldOutConfig, Parts
from imgalign.train.data.texts import CompletionsConfig, TextRankingsConfig

PAIRS = [
    {"prompt": "a cat", "chosen": "a red cat", "rejected": "a dog"},
    {"prompt": "a dog", "chosen": "a blue dog", "rejected": "a cat"},
]
ROWS = [
    {"prompt": "a cat", "completion": "a red cat"},
    {"prompt": "a dog", "completion": "a blue dog"},
    {"prompt": "a bird", "completion": "a bird on a tree"},
]


def parts(policy: LikelihoodPolicy, run: Path, *, held_out: tuple[str, ...] = ()) -> Parts:
    prompts = Prompts((), held_out)
    return Parts(policy=policy, reward=None, prompts=prompts, run=run, seed=0, world=Alone())


def test_rankings_of_texts_are_batches_of_their_tokens_in_the_order_of_their_ranks(
    policy, tmp_path
):
    config = TextRankingsConfig(file=lines(tmp_path / "pairs.jsonl", *PAIRS))
    config.keep(tmp_path)
    batch = config.build(parts(policy, tmp_path)).batch(0)
    assert batch.ranks.tolist() == [[0, 1], [0, 1]]
    for row, each in zip(batch.index.tolist(), batch.data.prompts[::2], strict=True):
        (pair,) = [pair for pair in PAIRS if pair["prompt"] == each]
        expected = policy.encode([each] * 2, [pair["chosen"], pair["rejected"]]).content
        for name, content in expected.items():
            assert torch.equal(batch.data.content[name][row], content)


def test_a_run_keeps_its_texts_when_the_file_goes(policy, tmp_path):
    file = lines(tmp_path / "pairs.jsonl", *PAIRS)
    config = TextRankingsConfig(file=file)
    config.keep(tmp_path)
    file.unlink()
    resumed = TextRankingsConfig(file=file)
    assert "file" in resumed.moved(tmp_path)
    batch = resumed.build(parts(policy, tmp_path)).batch(0)
    assert len(batch) == 4
    (tmp_path / TEXTS).write_text("[]")
    with pytest.raises(CheckpointError, match=r"texts\.json: missing or damaged"):
        resumed.build(parts(policy, tmp_path))


def test_completions_come_once_each_before_any_comes_again_and_not_those_held_out(policy, tmp_path):
    file = lines(tmp_path / "rows.jsonl", *ROWS)
    config = CompletionsConfig(file=file, completions_per_iteration=1)
    config.keep(tmp_path)
    file.unlink()
    source = config.build(parts(policy, tmp_path, held_out=("A  bird",)))
    seen = [source.batch(iteration).batch[0].prompts[0] for iteration in range(2)]
    assert sorted(seen) == ["a cat", "a dog"]


def test_disliked_completions_are_not_examples(tmp_path):
    rows = [{**row, "label": number > 0} for number, row in enumerate(ROWS)]
    config = CompletionsConfig(file=lines(tmp_path / "rows.jsonl", *rows))
    assert [each.prompt for each in config.read()[0]] == ["a dog", "a bird"]
    disliked = CompletionsConfig(
        file=lines(tmp_path / "all.jsonl", *[{**row, "label": False} for row in ROWS])
    )
    with pytest.raises(InputError, match="all completions are disliked"):
        disliked.read()


def test_disliked_completions_are_not_examples_whose_likelihood_is_kept_either(tmp_path):
    rows = [{**row, "label": number > 0} for number, row in enumerate(ROWS)]
    file = lines(tmp_path / "rows.jsonl", *rows)
    keep_examples(file, tmp_path)
    assert [each.prompt for each in kept_examples(file, tmp_path)] == ["a dog", "a bird"]


def test_rows_that_cannot_be_used_are_named_in_the_run_and_counted(tmp_path, caplog):
    broken = {"prompt": "a fish", "completion": "a blue", "finish_reason": "length"}
    caplog.set_level("INFO")
    file = lines(tmp_path / "rows.jsonl", *ROWS, broken)
    for kept in (CompletionsConfig(file=file).keep, partial(keep_examples, file)):
        caplog.clear()
        kept(tmp_path)
        (line,) = (tmp_path / "left_out.txt").read_text(encoding="utf-8").splitlines()
        (tmp_path / "left_out.txt").unlink()
        assert line.startswith("line 4: ")
        assert "rows.jsonl: 3 completions" in caplog.text
        assert "left out, cut: 1 (line 4: " in caplog.text
        assert "weight" not in caplog.text


def test_a_weight_of_an_example_is_said_to_have_no_effect(tmp_path, caplog):
    file = lines(tmp_path / "rows.jsonl", {**ROWS[0], "weight": 2.0}, *ROWS[1:])
    CompletionsConfig(file=file).keep(tmp_path)
    assert "the column weight is not used; every example counts alike" in caplog.text


def test_without_a_file_they_are_the_storybooks_and_the_same_each_time():
    config = CompletionsConfig(num_storybook=20)
    found, where = config.read()
    assert len(found) == 20
    assert found == config.read()[0]
    assert "storybook" in where


def test_a_text_that_is_too_long_is_named_and_leaves_its_ranking_out(policy, tmp_path, caplog):
    long = {"prompt": "a cat", "chosen": "a red cat " * 20, "rejected": "a dog"}
    config = TextRankingsConfig(file=lines(tmp_path / "pairs.jsonl", *PAIRS, long))
    config.keep(tmp_path)
    source = config.build(parts(policy, tmp_path))
    source.batch(0)
    assert len(source.training) == 2
    assert "policy.max_new_tokens is 24" in caplog.text


def test_completions_that_are_too_long_are_left_out_and_one_is_named(policy, tmp_path, caplog):
    long = {"prompt": "a fish", "completion": "a blue fish " * 20}
    config = CompletionsConfig(file=lines(tmp_path / "rows.jsonl", long, *ROWS))
    config.keep(tmp_path)
    caplog.clear()
    source = config.build(parts(policy, tmp_path))  # not asked for: all there are
    assert {each.prompt for each in source.examples} == {row["prompt"] for row in ROWS}
    assert (source.count, source.passes(6)) == (3, 6.0)
    assert "left out: 1 of 4 (" in caplog.text
    assert "policy.max_new_tokens is 24" in caplog.text
    assert "example 1, of prompt 'a fish': text 'a blue fish" in (tmp_path / LEFT_OUT).read_text(
        encoding="utf-8"
    )
    asked = CompletionsConfig(file=config.file, completions_per_iteration=4)
    with pytest.raises(InputError, match="expected at least 4 examples that can be used, got 3"):
        asked.build(parts(policy, tmp_path))
    lines(tmp_path / "rows.jsonl", long)
    config.keep(tmp_path)
    with pytest.raises(InputError, match="expected at least 1 examples that can be used, got 0"):
        config.build(parts(policy, tmp_path))


def test_examples_are_a_folder_of_images_or_a_file_of_texts(tmp_path):
    file = lines(tmp_path / "rows.jsonl", *ROWS)
    keep_examples(file, tmp_path)
    file.unlink()  # a run keeps them
    refuse_other_examples(file, tmp_path, setting="data.examples")
    examples = kept_examples(file, tmp_path)
    assert [each.prompt for each in examples] == ["a cat", "a dog", "a bird"]
    assert examples[0].load() == ["a red cat"]
    with pytest.raises(InputError, match="expected a folder of images or a file of completions"):
        keep_examples(tmp_path / "none", tmp_path)


def test_examples_of_another_kind_than_the_policy_makes_are_refused(tmp_path):
    file = lines(tmp_path / "rows.jsonl", *ROWS)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    refuse_other_kind(file, "texts")
    refuse_other_kind(tmp_path, "images")
    with pytest.raises(ConfigError, match=r"a folder of images with captions, .* got pro"):
        refuse_other_kind(file, "images")
    with pytest.raises(ConfigError, match=r"expected prompts and completions, .* got images in"):
        refuse_other_kind(tmp_path, "texts")


def test_images_whose_likelihood_is_kept_are_those_that_the_run_began_with(tmp_path):
    folder, run = tmp_path / "images", tmp_path / "run"
    folder.mkdir()
    run.mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8), (number * 90, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a cat {number}")
    keep_examples(folder, run)
    refuse_other_examples(folder, run, setting="data.examples")
    assert [each.prompt for each in kept_examples(folder, run)] == ["a cat 0", "a cat 1"]
    (folder / "1.txt").write_text("a dog")
    with pytest.raises(ConfigError, match=r"data\.examples: .* holds other images or captions"):
        refuse_other_examples(folder, run, setting="data.examples")
    (run / "images.json").unlink()
    with pytest.raises(CheckpointError, match="nobody knows which images"):
        refuse_other_examples(folder, run, setting="data.examples")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algorithm.ptx=0.5"], "data.examples: expected examples whose likelihood is to be kept"),
        (["data.examples=x.jsonl"], "data.examples: has no effect without algorithm.ptx above 0"),
        (
            [
                "policy.kind=language",
                "algorithm.name=dpo",
                "algorithm.draws=2",
                *("data.from=rankings", "data.samples=texts"),
            ],
            "algorithm.draws: has no effect with policy.kind: language, whose log-probabilities",
        ),
    ],
)
def test_what_has_no_effect_or_lacks_its_counterpart_is_refused(overrides, said):
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, None, overrides)
    assert said in str(caught.value)


def test_a_text_is_named_by_the_hash_of_its_bytes():
    assert text_key("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert text_key("a") != text_key("a ")


def test_texts_that_were_ranked_in_the_store_are_learned_from(policy, tmp_path):
    with Store.open(tmp_path / "imgalign.db") as store:
        provenance = TextProvenance(
            model="m", prompt="a cat", seed=0, temperature=1.0, max_new_tokens=24
        )
        names = [store.add_text(text, provenance) for text in ("a red cat", "a dog")]
        item = store.add_item("a cat", names, source="test")
        store.add_annotator("ada", group="cosy")
        shown = store.next_item("ada")
        assert shown is not None
        order = store.display_order(item, "ada")
        store.submit(
            Submission(
                key="1",
                item_id=item,
                annotator="ada",
                ranking=as_positions(((1,), (0,)), order),
            )
        )
    config = RankingsConfig(
        database=str(tmp_path / "imgalign.db"),
        samples="texts",
        held_out=HeldOutConfig(num_prompts=0),
    )
    config.keep(tmp_path)
    (tmp_path / "imgalign.db").unlink()
    batch = config.build(parts(policy, tmp_path)).batch(0)
    expected = policy.encode(["a cat"] * 2, ["a red cat", "a dog"]).content["tokens"]
    assert batch.ranks.tolist() == [[1, 0]]
    assert torch.equal(batch.data.content["tokens"], expected)
    with pytest.raises(ValidationError, match="originals: has no effect with samples: texts"):
        RankingsConfig(samples="texts", originals=tmp_path)


def test_images_are_not_given_to_a_language_model_nor_texts_to_a_diffusion_model():
    for overrides, said in [
        (
            ["policy.kind=language", "algorithm.name=dpo", "data.from=rankings"],
            "data.from: rankings gives images, and policy.kind: language learns from texts",
        ),
        (
            ["algorithm.name=dpo", "data={from: text_rankings, file: x.jsonl}"],
            "data.from: text_rankings gives texts, and policy.kind: diffusion learns from images",
        ),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(TrainConfig, None, overrides)
        assert said in str(caught.value)


def test_every_row_that_is_left_out_is_in_a_file_of_the_run(tmp_path):
    broken = [{"prompt": "a cat", "chosen": "a cat", "rejected": "a cat"}] * 5
    config = TextRankingsConfig(file=lines(tmp_path / "pairs.jsonl", *PAIRS, *broken))
    config.keep(tmp_path)
    written = (tmp_path / LEFT_OUT).read_text().splitlines()
    assert len(written) == 5
    assert written == [f"line {number}: equal texts" for number in range(3, 8)]
    whole = TextRankingsConfig(file=lines(tmp_path / "whole.jsonl", *PAIRS))
    (tmp_path / "whole").mkdir()
    whole.keep(tmp_path / "whole")
    assert not (tmp_path / "whole" / LEFT_OUT).exists()
