"""The measures that the storybook gives to a comparison."""

import pytest

from imgalign.storybook.oracle import slice_of


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("a red cat at night", "one object"),
        ("three fish", "several of a kind"),
        ("a cat on a house", "two in a relation"),
        ("an oil painting", "free text"),
    ],
)
def test_a_prompt_is_of_the_kind_that_its_scene_is(prompt, kind):
    assert slice_of(prompt) == kind
