"""What a reward of texts cannot read is said for each text, and left out of an evaluation."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from tiny_language import CONTEXT, build_tokenizer, write_language_model

from imgalign.language.loading import load_language_model
from imgalign.language.token_reward import TokenReward, unread
from imgalign.preferences.records import Ranking
from reward_models.contract import Scale
from reward_models.evaluate import evaluate
from reward_models.text import TextReward
from reward_models.text_models import scalar_model


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> TextReward:
    folder: Path = tmp_path_factory.mktemp("model")
    write_language_model(folder, "llama", build_tokenizer())
    found = load_language_model(str(folder), device=torch.device("cpu"))
    reward = TextReward(
        scalar_model(found.model, likelihood=True),
        found.tokenizer,
        context_length=found.context_length,
        scale=Scale(mean=0.5, std=2.0, log_odds=0.7),
        log_tie=(-1.0, -2.0),
    )
    return reward.requires_grad_(False)


def test_what_cannot_be_read_is_said_for_each_text(reward):
    reasons = reward.unread(["a cat", "a cat", " "], ["a", "x" * CONTEXT, "a"])
    assert reasons[0] == ""
    assert reasons[1].startswith("prompt 'a cat': its 5 tokens and 65 of the response")
    assert reasons[2] == "prompt ' ': expected text, got none"
    assert unread(reward, ["a cat"], ["a"]) == [""]
    assert isinstance(reward, TokenReward)


def test_rankings_that_a_reward_cannot_read_are_left_out_of_its_evaluation(reward, caplog):
    texts = {"short": "a", "other": "a cat", "long": "x" * CONTEXT}
    rankings = [
        Ranking(
            ranking_id=f"{number}",
            prompt="a cat",
            sample_ids=pair,
            order=(0, 1),
            ranking=((0,), (1,)),
            verdict="ranked",
            reason=None,
            annotator="ann",
            group="any",
            created_at=datetime.now(UTC),
            samples="texts",
        )
        for number, pair in enumerate([("other", "short"), ("long", "short")])
    ]
    found = evaluate(reward, rankings, texts.__getitem__)
    assert found.accuracy.num_pairs == 1
    assert "1 text cannot be read, so 1 of 2 rankings are left out" in caplog.text
