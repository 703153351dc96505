"""Which words of a prompt are locked, and which texts keep them."""

import pytest

from imgalign.errors import InputError
from imgalign.language.locking import (
    check_lock,
    content_words,
    locked_words,
    lost_words,
    parse_lock,
)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a cat on something red", ("cat", "on", "red")),
        ("Two CATS and the cats, without a hat!", ("two", "cats", "without", "hat")),
        ("(a red cat:1.2), sci-fi, blue_eyes", ("red", "cat", "sci-fi", "blue_eyes")),
        ("don't draw the artist’s hat", ("don't", "draw", "artist's", "hat")),
        ("一只红色的猫, cat猫", ("一只红色的猫", "cat", "猫")),
        ("แมวสีแดง", ("แมวสีแดง",)),
        ("लाल बिल्ली", ("लाल", "बिल्ली")),
        ("красная кошка", ("красная", "кошка")),
        ("قطة حمراء", ("قطة", "حمراء")),
        ("a 🐱 with a ❤️", ("🐱", "❤️")),
        ("the of and", ()),
        ("!!! ...", ()),
    ],
)
def test_every_word_that_says_something_of_the_image_is_locked(prompt, words):
    assert content_words(prompt) == words


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("cat", "A RED CAT."),
        ("cat", "(cat:1.3), masterpiece"),
        ("cat", "the cat's hat"),
        ("Straße", "an einer STRASSE"),
        ("café", "a cafe\u0301 at night"),
        ("red cat", "a red   cat"),
        ("t-shirt", "a T\u2010shirt"),
        ("artist's", "the artist\u2019s hat"),
        ("红色的猫", "雪地里一只红色的猫在睡觉"),
        ("猫", "黑猫"),
        ("ｃａｔ", "a cat"),
        ("🐱", "a cat🐱!"),
        ("c++", "c++ on a screen"),
        ("a.*", "a house"),
    ],
)
def test_a_word_is_kept_whatever_its_case_and_the_marks_around_it(phrase, text):
    assert lost_words((phrase,), text) == ()


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("cat", "cats"),
        ("cat", "concatenate"),
        ("cat", "a cat-like dog"),
        ("red", "infra-red light"),
        ("red cat", "a red, cat"),
        ("red cat", "a cat red"),
        ("red cat", "a red fat cat"),
        ("猫", "狗"),
        ("红猫", "猫红"),
        ("кот", "котёнок"),
        ("cat", ""),
    ],
)
def test_a_part_of_a_word_or_of_a_phrase_does_not_keep_it(phrase, text):
    assert lost_words((phrase,), text) == (phrase,)


def test_a_prompt_keeps_all_that_is_locked_in_it():
    for prompt in (
        "a red cat on a t-shirt",
        "it's a dog's life",
        "一只猫 and a 🐱",
        "(x:1.5), y_z",
    ):
        for lock in ("content", "none", ("red", "一只猫", "absent")):
            assert lost_words(locked_words(prompt, lock), prompt) == ()


def test_of_words_that_are_named_a_prompt_is_held_to_those_that_it_has():
    assert locked_words("a red cat", ("red", "blue", "red cat")) == ("red", "red cat")
    assert locked_words("a red cat", "none") == ()


def test_a_lock_is_written_with_commas():
    assert parse_lock(" red ,house by  the sea,red,") == ("red", "house by the sea")
    assert parse_lock("content") == "content"
    assert parse_lock("none") == "none"
    for text in ("", " , ", "red, !!"):
        with pytest.raises(InputError, match="lock: expected words separated by commas"):
            parse_lock(text)


def test_a_word_that_no_prompt_has_is_refused():
    check_lock(("red",), ["a cat", "a red cat"])
    check_lock("content", ["a cat"])
    with pytest.raises(InputError, match="'rde' is not in any of the prompts"):
        check_lock(("red", "rde"), ["a red cat", "a cat"])
    with pytest.raises(InputError, match="'rde' is not in the prompt 'a red cat'"):
        check_lock(("rde",), ["a red cat"])
