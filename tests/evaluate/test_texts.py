"""Claims: runs of language models are compared with their base as those of images are: the same
prompts and seeds on both sides, judged blind, with drift, length and diversity, and kept."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from language_runs import LettersE, language_settings, start_language, write_talker
from torch import Tensor

from imgalign.errors import ConfigError, InputError
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.evaluation import load_evaluation
from imgalign.evaluate.judging import Judge, Measures
from imgalign.evaluate.run import Evaluation, evaluate
from imgalign.evaluate.saved_images import Side
from imgalign.evaluate.texts import OfTexts, load_texts, word_distance, words
from imgalign.language.generate import TextGenerator
from imgalign.runs.checkpoint import checkpoints
from imgalign.runs.folder import samples_under

ASKED = ("one sheep", "old trees", "a new gate", "the east")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_talker(tmp_path_factory.mktemp("talker") / "model")


@pytest.fixture(scope="module", params=["lora", "full"])
def run(request, model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / request.param
    rate = {"lora": 0.03, "full": 3e-3}[request.param]
    settings = language_settings(
        model,
        policy={"train": request.param, "temperature": 1.2},
        optimizer={"learning_rate": rate},
        iterations=4,
    )
    start_language(out, settings)
    return out


def letters(*, prompts: Sequence[str], samples: Sequence[str]) -> Tensor:
    return torch.tensor([float(text.count("e")) for text in samples])


class ReadsLittle(LettersE):
    """Reads few letters of prompt and text together."""

    reading = "letters"
    most = 20

    def refuse_long(self, prompts: Sequence[str], *, length: int) -> None:
        raise AssertionError

    def unread(self, prompts: Sequence[str], samples: Sequence[str]) -> list[str]:
        lengths = [len(prompt + text) for prompt, text in zip(prompts, samples, strict=True)]
        return [f"reads {self.most}, got {each}" * (each > self.most) for each in lengths]

    def score(self, *, prompts: Sequence[str], samples: Sequence[str]) -> Tensor:
        assert not any(self.unread(prompts, samples))
        return super().score(prompts=prompts, samples=samples)


def test_pairs_that_a_reward_cannot_read_have_none_and_are_said(caplog):
    prompts = ["one", "two", "six", "ten"]
    base = ["e", "e" * 20, "ee", "eee"]
    aligned = ["ee", "e", "eeee", "e" * 30]
    judge = Judge(prompts=prompts, base=base, aligned=aligned, seed=0, stack=list)
    found = judge.pairs([0, 1, 2, 3], Measures(oracle=letters, proxy=ReadsLittle()))
    everything = judge.pairs([0, 1, 2, 3], Measures(oracle=letters, proxy=LettersE()))
    assert [pair.proxy for pair in found] == [
        everything[0].proxy,
        None,
        everything[2].proxy,
        None,
    ]
    assert [pair.oracle for pair in found] == [pair.oracle for pair in everything]
    assert "pairs without a reward: 2 of 4 (reads 20, got 23)" in caplog.text
    none = judge.pairs([0, 1, 2, 3], Measures(proxy=type("", (ReadsLittle,), {"most": 1})()))
    assert [pair.proxy for pair in none] == [None] * 4


def prompt_file(folder: Path) -> Path:
    path = folder / "asked.txt"
    path.write_text("".join(f"{each}\n" for each in ASKED), encoding="utf-8")
    return path


def compare(run: Path, out: Path, **settings: object) -> Evaluation:
    values: dict[str, object] = {"prompts": prompt_file(out.parent), "images_per_prompt": 3}
    return evaluate(
        EvaluateConfig.model_validate({"aligned": run, **values, **settings}),
        measures=Measures(oracle=letters, oracle_meaning="the letters e", proxy=LettersE()),
        out=out,
    )


def test_a_run_of_texts_is_known_by_its_settings_and_a_whole_model_by_its_files(run, model):
    assert samples_under(checkpoints(run)[-1]) == "texts"
    assert samples_under(model) == "texts"


def test_both_sides_are_what_base_and_trained_weights_write_from_the_same_seeds(
    run, model, tmp_path
):
    found = compare(run, tmp_path / "out")
    assert found.samples == "texts"
    assert len(found.pairs) == 12
    folder = tmp_path / "out" / found.images
    sides: dict[Side, list[str]] = {}
    asked: tuple[tuple[Side, Path | None], ...] = (("base", None), ("aligned", run))
    for side, weights in asked:
        generator = TextGenerator(str(model))
        generator.use(weights)
        made = generator.generate(
            [pair.prompt for pair in found.pairs],
            seeds=[pair.seed for pair in found.pairs],
            temperature=1.2,
            max_new_tokens=8,
        )
        sides[side] = [each.text for each in made]
        assert load_texts(folder, side, count=12) == sides[side]
    assert sides["base"] != sides["aligned"]
    assert [pair.oracle for pair in found.pairs] == [
        (float(one.count("e")), float(other.count("e")))
        for one, other in zip(sides["base"], sides["aligned"], strict=True)
    ]
    rows = json.loads((folder / "aligned.json").read_text())
    assert {(row["temperature"], row["max_new_tokens"]) for row in rows} == {(1.2, 8)}
    assert {row["adapter_hash"] for row in rows} == {found.aligned.adapter_hash}


def test_the_result_has_win_rate_drift_length_and_diversity_and_is_read_back(run, tmp_path):
    found = compare(run, tmp_path / "out")
    assert found.summary.win_rate is not None
    assert found.summary.win_rate.num_pairs == 12
    assert found.drift is not None
    assert found.drift.nats > 0
    assert found.diversity is not None
    assert found.diversity.space == "edit distance of words"
    assert found.length is not None
    texts = load_texts(tmp_path / "out" / found.images, "base", count=12)
    assert found.length.before.value == pytest.approx(sum(len(text.split()) for text in texts) / 12)
    said = "\n".join(found.lines())
    assert "nats per text" in said
    assert "words of a text" in said
    assert load_evaluation(tmp_path / "out") == found


def test_weights_that_changed_nothing_tie_everywhere(model, tmp_path):
    run = tmp_path / "run"
    start_language(run, language_settings(model, optimizer={"learning_rate": 1e-12}, iterations=1))
    found = compare(run, tmp_path / "out")
    assert found.summary.win_rate is not None
    assert found.summary.win_rate.ties == 12
    assert found.length is not None
    assert found.length.difference.value == 0


def test_a_new_evaluation_replaces_the_texts_of_the_last(run, tmp_path):
    out = tmp_path / "out"
    first = compare(run, out)
    second = compare(run, out, seed=1)
    assert first.images != second.images
    assert [each.name for each in out.iterdir() if each.is_dir()] == [second.images]


@pytest.mark.parametrize("run", ["lora"], indirect=True)
def test_a_loras_start_is_its_base(run, model, tmp_path):
    later = tmp_path / "later"
    settings = language_settings(model, policy={"adapter": str(run)}, iterations=1)
    start_language(later, settings)
    found = compare(later, tmp_path / "out")
    assert found.base.adapter is not None
    assert found.base.adapter_hash != found.aligned.adapter_hash


def test_settings_of_images_have_no_effect_on_texts_and_say_so(run, tmp_path):
    for name in ("baseline_guidance_scale", "strength"):
        with pytest.raises(ConfigError, match=f"{name}: has no effect on texts"):
            compare(run, tmp_path / "out", **{name: 2.0})


def test_prompts_that_leave_no_room_are_refused_in_one_line(run, tmp_path):
    (tmp_path / "long.txt").write_text("a " * 60 + "\n")
    with pytest.raises(InputError, match="are more than the 64 that the model reads"):
        compare(run, tmp_path / "out", prompts=tmp_path / "long.txt")
    assert not (tmp_path / "out" / "evaluation.json").exists()


# --- how alike two texts are


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "", 0.0),
        ("a cat", "", 1.0),
        ("a red cat", "a red cat", 0.0),
        ("a red cat", "a cat", 1 / 3),
        ("a red cat", "a blue cat", 1 / 3),
        ("b c d e", "a b c d", 0.5),  # one inserted before, one deleted behind
        ("a cat, a cat", "a cat", 3 / 5),  # the comma counts as a word
        ("x y", "u v w", 1.0),
    ],
)
def test_the_distance_of_two_texts_is_the_share_of_words_to_change(one, other, expected):
    assert word_distance(words(one), words(other)) == pytest.approx(expected)
    assert word_distance(words(other), words(one)) == pytest.approx(expected)


def test_diversity_is_the_mean_over_pairs_of_texts():
    found = OfTexts().distance(["a red cat", "a red cat", "a cat"], None)
    assert found == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)
