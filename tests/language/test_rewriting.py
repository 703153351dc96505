"""Rewrites keep every locked word, or are left out and counted."""

import math
from pathlib import Path

import pytest
import torch
from policies import language, move_weights
from tiny_language import LETTERS, build_tokenizer, write_language_model

from imgalign.errors import ConfigError, InputError, NumericsError
from imgalign.language.locking import lost_words
from imgalign.language.rewriting import (
    Candidate,
    LeftOut,
    RewritingConfig,
    best_first,
    continued,
    load_rewriter,
    sifted,
    tidied,
)

NO_REWRITE = {3: "a dog", 4: None, 5: "", 6: "a red cat by the sea"}


class Lengths:
    """Likes long texts."""

    def score(self, *, prompts, samples):
        assert len(set(prompts)) == 1
        return torch.tensor([float(len(text)) for text in samples])


class Short(Lengths):
    """Reads 12 letters."""

    reading = "letters"

    def refuse_long(self, prompts, *, length):
        raise AssertionError

    def unread(self, prompts, samples):
        assert prompts == [prompts[0]] * len(samples)
        return ["is long" if len(text) > 12 else "" for text in samples]

    def score(self, *, prompts, samples):
        assert not any(self.unread(prompts, samples))
        return super().score(prompts=prompts, samples=samples)


class Broken:
    def score(self, *, prompts, samples):
        return torch.full((len(samples),), math.nan)


@pytest.fixture(scope="module")
def rewriter():
    return load_rewriter("storybook", RewritingConfig(tries=6), device="cpu")


def test_texts_that_are_equal_up_to_case_and_spaces_are_merged():
    texts = {0: "a red cat", 1: "A red CAT", 2: "a cat at night"}
    found = sifted("a cat", texts, locked=("cat",))
    assert [(each.text, each.seeds) for each in found.candidates] == [
        ("a red cat", (0, 1)),
        ("a cat at night", (2,)),
    ]
    assert (found.text, found.tries, found.left_out) == ("a red cat", 3, ())


def test_what_is_left_out_is_counted_and_said():
    def unread(text: str) -> str:
        return text[11:]

    found = sifted("a cat", {2: "a red cat", **NO_REWRITE}, locked=("cat",), unread=unread)
    assert [each.text for each in found.candidates] == ["a red cat"]
    assert [(each.reason, each.seeds, each.detail) for each in found.left_out] == [
        ("lost a word", (3,), ("cat",)),
        ("has no end", (4,), ()),
        ("is empty", (5,), ()),
        ("is too long", (6,), ("y the sea",)),
    ]
    assert found.lines() == [
        "1 of 5 tries keep cat",
        "left out: 1 without a locked word (cat: 1), 1 without an end, 1 empty, 1 longer than the "
        "image model reads",
    ]


def test_where_no_rewrite_keeps_all_the_prompt_stays_as_it_is():
    found = sifted("a cat", {0: "a dog", 1: "cats"}, locked=("cat",))
    assert (found.text, found.changed, found.candidates) == ("a cat", False, ())
    assert found.lines() == [
        "0 of 2 tries keep cat",
        "left out: 2 without a locked word (cat: 2)",
        "the prompt stays as it is; ask more often, or lock fewer words",
    ]


def test_a_text_that_says_the_prompt_again_comes_after_those_that_change_it():
    found = sifted("a cat", {0: "A cat", 1: "a red cat"}, locked=())
    assert [each.text for each in found.candidates] == ["a red cat", "A cat"]
    alone = sifted("a cat", {0: "a cat"}, locked=())
    assert not alone.changed
    assert alone.lines()[-1] == "the rewrite is the prompt itself"


def test_a_prompt_that_the_image_model_cuts_is_said_where_it_stays():
    found = sifted("a cat at night", {0: "a dog"}, locked=("cat",), unread=lambda text: text[5:])
    assert found.lines()[-1] == "the image model does not read the end of it: ' at night'"


def test_a_reward_puts_the_best_candidate_first():
    found = sifted("a cat", {0: "a red cat", 1: "a cat in the snow"}, locked=("cat",))
    best = best_first(found, Lengths())
    assert [(each.text, each.reward) for each in best.candidates] == [
        ("a cat in the snow", 17.0),
        ("a red cat", 9.0),
    ]
    assert best.prompt_reward == 5.0
    assert best.lines()[-1] == "reward +17.0000, of the prompt as it is +5.0000"
    with pytest.raises(NumericsError, match="no finite score"):
        best_first(found, Broken())


def test_what_a_reward_cannot_read_is_left_out_and_said():
    found = sifted("a cat", {0: "a red cat", 1: "a cat in the snow"}, locked=("cat",))
    best = best_first(found, Short())
    assert [(each.text, each.reward) for each in best.candidates] == [("a red cat", 9.0)]
    assert [(each.text, each.seeds) for each in best.left_out] == [("a cat in the snow", (1,))]
    assert "left out: 1 longer than the reward reads" in best.lines()
    assert best.prompt_reward == 5.0
    long = "a cat that sleeps"
    found = sifted(long, {0: "a cat sleeps", 1: "a cat that sleeps now"}, locked=("cat",))
    best = best_first(found, Short())
    assert ([each.reward for each in best.candidates], best.prompt_reward) == ([12.0], None)
    none = best_first(sifted(long, {0: f"{long} now"}, locked=("cat",)), Short())
    assert (none.candidates, none.text) == ((), long)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" a cat,\n\n in \t the snow ", "a cat, in the snow"),
        ('"a cat"', "a cat"),
        ("\u201ca cat\u201d", "a cat"),
        ('"a" and "b"', '"a" and "b"'),
        ("a\0cat\x1b[31m", "a cat [31m"),
        ('"', '"'),
        ("\n", ""),
    ],
)
def test_what_a_model_says_is_made_one_line(text, line):
    assert tidied(text) == line


def test_a_continuation_follows_the_prompt():
    assert continued("a cat", ", highly detailed\n") == "a cat, highly detailed"
    assert continued("a cat", " in the snow") == "a cat in the snow"
    assert continued("a cat", "in the snow") == "a cat in the snow"
    assert continued("a cat", "") == "a cat"


def test_the_shipped_model_gives_rewrites_that_keep_all_words(rewriter):
    prompts = ["a cat", "something red on a house", "two birds", "a beautiful photo of mountains"]
    found = rewriter.rewrite(prompts, seed=0)
    for prompt, each in zip(prompts, found, strict=True):
        assert each.prompt == prompt
        texts = [candidate.text for candidate in each.candidates]
        assert all(lost_words(each.locked, text) == () for text in texts)
        assert len({text.casefold() for text in texts}) == len(texts)
        parts = [part.seeds for part in (*each.candidates, *each.left_out)]
        assert sorted(seed for seeds in parts for seed in seeds) == list(range(6))
        assert lost_words(each.locked, each.text) == ()
    assert sum(each.changed for each in found) >= 3


def test_a_rewrite_follows_from_its_prompt_and_its_seed_alone(rewriter):
    together = rewriter.rewrite(["a cat", "two birds in a room"], seed=3)
    alone = [rewriter.rewrite([each.prompt], seed=3)[0] for each in together]
    assert together == alone
    later = rewriter.rewrite(["a cat"], seed=4)[0]
    texts = {seed: each.text for each in together[0].candidates for seed in each.seeds}
    others = {seed: each.text for each in later.candidates for seed in each.seeds}
    assert all(texts[seed] == others[seed] for seed in texts.keys() & others.keys())
    assert later != together[0]


def test_a_prompt_without_room_for_a_rewrite_is_refused(rewriter):
    with pytest.raises(InputError, match="tokens, and the rewriter reads 128, of which a rewrite"):
        rewriter.rewrite(["a cat", "a cat and " * 30], seed=0)
    with pytest.raises(InputError, match="expected text"):
        rewriter.rewrite([" "], seed=0)


def test_a_template_needs_a_place_for_the_prompt_and_any_braces_may_stand_beside_it(rewriter):
    for template in ("rewrite it", "{prompt} {prompt}"):
        with pytest.raises((ConfigError, ValueError), match=r"expected \{prompt\} in it, once"):
            RewritingConfig(template=template)
    rewriter.config, before = RewritingConfig(template="{a} {prompt} {"), rewriter.config
    asked = rewriter._tokens(["{prompt}"])
    rewriter.config = before
    assert asked == rewriter._tokens(["{a} {prompt} {"])


@pytest.mark.parametrize("train", ["lora", "full"])
def test_a_run_rewrites_as_its_policy_samples(tmp_path: Path, train: str):
    folder = write_language_model(
        tmp_path / "model", "llama", build_tokenizer(letters=LETTERS), spread=0.2
    )
    policy = language(folder, max_new_tokens=8, batch_size=4, train=train)
    move_weights(policy)
    run = tmp_path / "run"
    step = run / "step-000010"
    step.mkdir(parents=True)
    policy.save(step)
    settings = f"policy: {{kind: language, model: {folder}, max_new_tokens: 8}}\n"
    (run / "config.yaml").write_text(settings)
    (run / "metrics.jsonl").write_text('{"step": 10}\n')
    trajectory = policy.sample(["a boat"] * 4, seeds=[5, 6, 7, 8])
    config = RewritingConfig(tries=4, temperature=1.0)
    for asked, length in ((config, 8), (RewritingConfig(max_new_tokens=5), 5)):
        assert load_rewriter(str(step), asked, device="cpu").length == length
    rewriter = load_rewriter(str(step), config, device="cpu", dtype="float32")
    (found,) = rewriter.rewrite(["a boat"], seed=5, lock="none")
    parts: list[Candidate | LeftOut] = [*found.candidates, *found.left_out]
    written = {seed: each.text for each in parts for seed in each.seeds}
    ends = trajectory.replay["tokens"].eq(policy.tokenizer.eos_token_id) & trajectory.mask
    expected = [
        tidied(text) if has_end else ""
        for text, has_end in zip(policy.decode(trajectory), ends.any(dim=1).tolist(), strict=True)
    ]
    assert [written[seed].casefold() for seed in (5, 6, 7, 8)] == expected
    assert any(expected)


def test_a_lora_that_belongs_to_no_run_is_refused(tmp_path: Path):
    folder = write_language_model(tmp_path / "model", "llama", build_tokenizer(letters=LETTERS))
    language(folder).save(tmp_path)
    with pytest.raises(InputError, match="belongs to no run, so its model is unknown"):
        load_rewriter(str(tmp_path), device="cpu")
