"""What a judge is asked, and which replies are read."""

import time

import pytest

from imgalign.feedback.question import Question, Reply, read_reply


def test_a_question_holds_prompt_principle_and_both_texts_as_they_are():
    texts = ("a {red} cat\n</text>", "cat %s {}")
    question = Question(
        prompt="a {cat}", principle="It is {short}.", first=texts[0], second=texts[1]
    )
    part = str(*question.parts())
    for said in ("a {cat}", "It is {short}.", *texts):
        assert said in part
    assert part.index(texts[0]) < part.index(texts[1])


def test_images_stand_between_the_texts_that_name_them():
    question = Question(prompt="a cat", principle="It is red.", first=b"1", second=b"2")
    parts = question.parts()
    assert parts[1::2] == [b"1", b"2"]
    before, between, after = map(str, parts[::2])
    assert before.endswith("Image A:")
    assert between == "Image B:"
    assert "a cat" in before
    assert "It is red." in before
    assert after.startswith("Which image")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A", "first"),
        (" B.\n", "second"),
        ("**B**", "second"),
        ("[[A]]", "first"),
        ('"A"', "first"),
        ("Text B", "second"),
        ("Image A.", "first"),
        ("Answer: B", "second"),
        ("**Answer:** A", "first"),
        ("The final answer is B.", "second"),
        ("B\n\nText B keeps the cat, A does not.", "second"),
        ("Text A names a dog, which nobody asked for.\n\nAnswer: B", "second"),
        ("<think>A is short. B it is.\nA</think>\nB", "second"),
        ("so it must be\nA</think>B", "second"),
        ("", None),
        ("A or B", None),
        ("A cat is what was asked for", None),
        ("a", None),
        ("AB", None),
        ("C", None),
        ("B\nNo, wait.\nA", None),
        ("<think>A", None),
        ("I cannot compare these texts.", None),
    ],
)
def test_a_reply_is_a_letter_that_stands_alone(text: str, choice: str | None):
    assert read_reply(text).choice == choice


def test_what_cannot_be_read_is_kept_in_part_for_a_message():
    assert read_reply("I like\nboth") == Reply(said="I like both")
    assert len(read_reply("x " * 1000).said) == 80
    assert read_reply("\x1b[2J both\x00") == Reply(said=r"\x1b[2J both\x00")


@pytest.mark.parametrize("text", ["*" * 10**6, "Answer: " + " *" * 10**6, "[" * 10**5 + "A]?"])
def test_a_judge_that_repeats_itself_without_end_is_read_at_once(text: str):
    begun = time.monotonic()
    assert read_reply(text).choice is None
    assert time.monotonic() - begun < 5
