"""What a rewrite changed, word by word."""

import random
from itertools import pairwise

import pytest

from imgalign.language.differences import marked, pieces, word_difference


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("a cat", "a red cat in the snow", "a {+red+} cat {+in the snow+}"),
        ("a big cat", "a red cat", "a [-big-] {+red+} cat"),
        ("big cat", "cat", "[-big-] cat"),
        ("cat", "big cat", "{+big+} cat"),
        ("cat big", "cat", "cat [-big-]"),
        ("a cat", "a cat", "a cat"),
        ("a cat.", "a cat, red.", "a cat{+, red+}."),
        ("", "a cat", "{+a cat+}"),
        ("a cat", "", "[-a cat-]"),
        ("", "", ""),
        ("a t-shirt", "a red t-shirt", "a {+red+} t-shirt"),
        ("黑猫", "黑色的猫", "黑{+色的+}猫"),
    ],
)
def test_a_difference_is_shown_as_git_shows_one_of_words(before, after, shown):
    assert marked(word_difference(before, after)) == shown


def test_the_parts_of_a_difference_hold_every_word_of_both_texts_in_order():
    chance = random.Random(0)
    words = ["a", "red", "cat", ",", "猫", "🐱", "in", "dog's", "बिल्ली", "<b>"]
    for _ in range(300):
        before, after = (
            " ".join(chance.choice(words) for _ in range(chance.randrange(8))) for _ in range(2)
        )
        parts = word_difference(before, after)
        for text, other in ((before, "removed"), (after, "added")):
            kept = [
                piece.strip()
                for part in parts
                if part.kind in ("kept", other)
                for piece in pieces(part.text)
            ]
            assert kept == [piece.strip() for piece in pieces(text)], (before, after)


def test_neighbouring_parts_differ_in_kind():
    parts = word_difference("a cat and a dog", "the cat or the red dog at night")
    assert all(one.kind != other.kind for one, other in pairwise(parts))
