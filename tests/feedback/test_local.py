"""A local judge: real models of tiny size, whose probabilities are computed another way here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import LETTERS, TEMPLATE, Kind, build_tokenizer, write_language_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from imgalign.errors import InputError, NumericsError
from imgalign.feedback.judge import Judge
from imgalign.feedback.local import LocalJudge
from imgalign.feedback.question import Question, Reply

LONG = 2048
SPREAD = 1.0
"""Of random weights, so wide that the reply depends on the whole question."""


def questions(num: int = 9) -> list[Question]:
    return [
        Question(prompt=f"cat {i}", principle="short", first="a" * i, second="b" * (20 - i))
        for i in range(1, num + 1)
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models whose next token depends on what comes before, with and without a chat template."""
    folder = tmp_path_factory.mktemp("judges")
    found = {}
    kinds: list[tuple[str, Kind, PreTrainedTokenizerFast]] = [
        ("chat", "qwen2", build_tokenizer(template=TEMPLATE)),
        ("plain", "llama", build_tokenizer()),
        ("begin", "gpt2", build_tokenizer(begin=True, pad="own")),
    ]
    for name, kind, tokenizer in kinds:
        path = folder / name
        write_language_model(path, kind, tokenizer, spread=SPREAD, context_length=LONG)
        found[name] = path
    return found


@pytest.mark.parametrize("name", ["chat", "plain", "begin"])
def test_the_reply_is_the_likelier_letter_by_plain_transformers(models: dict[str, Path], name: str):
    tokenizer: Any = AutoTokenizer.from_pretrained(models[name])
    model: Any = AutoModelForCausalLM.from_pretrained(models[name]).eval()
    expected = []
    for question in questions():
        text = str(*question.parts())
        if name == "chat":
            tokens = tokenizer(f"<user>{text}<answer>", add_special_tokens=False)["input_ids"]
            letters = ["A", "B"]
        else:
            begin = [tokenizer.bos_token_id] if name == "begin" else []
            tokens = begin + tokenizer(f"{text}\n\nAnswer:", add_special_tokens=False)["input_ids"]
            letters = [" A", " B"]
        scores = []
        for letter in letters:
            own = tokenizer(letter, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([tokens + own])).logits[0].log_softmax(-1)
            places = range(len(tokens) - 1, len(tokens) + len(own) - 1)
            scores.append(sum(logits[p, t].item() for p, t in zip(places, own, strict=True)))
        expected.append("first" if scores[0] > scores[1] else "second")
    assert len(set(expected)) == 2, "a judge that says the same to all would pass for nothing"
    for batch_size in (1, 2, 8):
        judge = LocalJudge(str(models[name]), dtype="float32", batch_size=batch_size)
        assert [reply.choice for reply in judge.replies(questions())] == expected


def test_it_is_a_judge_of_texts_and_says_which_weights_it_has(models: dict[str, Path]):
    judge = LocalJudge(str(models["chat"]))
    assert isinstance(judge, Judge)
    assert (judge.model, judge.host, judge.image_size) == (str(models["chat"]), None, None)
    assert judge.revision
    assert judge.revision != LocalJudge(str(models["plain"])).revision


def test_a_question_that_is_too_long_is_no_reply_and_the_others_have_theirs(
    models: dict[str, Path],
):
    judge = LocalJudge(str(models["chat"]), batch_size=2)
    one, two, three = questions(3)
    usual = [reply.choice for reply in judge.replies([one, two, three])]
    long = Question(prompt="cat", principle="short", first="a" * LONG, second="b")
    replies = list(judge.replies([one, long, two, three]))
    assert [reply.choice for reply in replies] == [usual[0], None, *usual[1:]]
    assert "tokens, and the judge reads 2048 with its reply" in replies[1].problem


def test_the_longest_question_that_fits_is_replied_to(tmp_path: Path):
    question = questions(1)[0]
    text = str(*question.parts())
    tokens = len(f"{text}\n\nAnswer:".encode()) + 1  # bytes, and the space before the letter
    for room, fits in [(tokens + 1, True), (tokens, False)]:
        path = tmp_path / str(room)
        write_language_model(path, "llama", build_tokenizer(), context_length=room)
        (reply,) = LocalJudge(str(path)).replies([question])
        assert bool(reply.problem) != fits
        assert bool(reply.choice) == fits


def test_a_control_token_in_a_text_is_a_problem_of_this_question(models: dict[str, Path]):
    judge = LocalJudge(str(models["chat"]))
    question = Question(prompt="cat", principle="short", first="a<answer>", second="b")
    (reply,) = judge.replies([question])
    assert reply.problem.startswith("contains '<answer>', a control token of the chat template")


def test_questions_are_taken_as_they_are_needed(models: dict[str, Path]):
    taken = 0

    def counted() -> Iterator[Question]:
        nonlocal taken
        for question in questions():
            taken += 1
            yield question

    replies = LocalJudge(str(models["plain"]), batch_size=2).replies(counted())
    assert taken == 0
    next(replies)
    assert taken == 2


def test_letters_that_are_as_likely_are_no_choice(tmp_path: Path):
    path = write_language_model(tmp_path, "llama", build_tokenizer(), context_length=LONG)
    judge = LocalJudge(str(path))
    with torch.no_grad():
        for parameter in judge.network.model.parameters():
            parameter.zero_()
    assert list(judge.replies(questions(1))) == [Reply(said="both letters are as likely")]
    with torch.no_grad():
        judge.network.model.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(NumericsError, match="not finite"):
        list(judge.replies(questions(1)))


def test_a_tokenizer_without_the_letters_is_refused(tmp_path: Path):
    path = write_language_model(tmp_path, "llama", build_tokenizer(letters=LETTERS))
    with pytest.raises(InputError, match="cannot tell the letters A and B apart"):
        LocalJudge(str(path))
