"""Claims: the form of the Learn page has what matters as controls with their meaning, and says what
is wrong at the line and at the control that it is of."""

from typing import get_args

import pytest

from imgalign.errors import ConfigError
from imgalign.preferences.records import Samples
from ui import fit_form
from ui.forms import Wrong, wrong_in


@pytest.mark.parametrize("samples", get_args(Samples))
def test_the_split_and_what_is_fitted_are_controls_with_their_meaning(samples: Samples) -> None:
    found = fit_form.explain(samples, "")
    named = {each.path: each for each in found.controls}
    assert list(named) == list(fit_form.MATTER[samples])
    assert all(each.meaning and each.value == each.usual for each in found.controls)
    assert named["test"].value == "0.2"
    assert "Share of prompts for the reported numbers" in named["test"].meaning
    assert {"clip", "unfreeze_image_blocks"} <= set(named) or {"model", "train"} <= set(named)
    for path in named:
        assert f'data-setting="{path}"' in found.table


def test_what_is_changed_is_shown_by_its_control_and_by_the_table() -> None:
    found = fit_form.explain("texts", "test = 0.3\n# why\ntrain=lora")
    named = {each.path: each for each in found.controls}
    assert (named["test"].value, named["test"].usual) == ("0.3", "0.2")
    assert (named["train"].value, named["train"].choices[1]) == ("lora", ("a LoRA", "lora"))
    assert found.title.startswith("Settings: 2 of ")
    assert found.notes == ""


def test_what_is_wrong_stands_at_its_line_and_at_its_control() -> None:
    found = fit_form.explain("images", "seeds=[1]\ntest=7\nepochz=3\nhead.hidden=many")
    notes = found.notes.split("</p>")
    assert notes[0].startswith('<p role="alert"><b>Line 2.</b> test: expected')
    assert all(f"<b>Line {line}.</b>" in notes[line - 2] for line in (2, 3, 4))
    assert "did you mean &#x27;epochs&#x27;?" in notes[1]
    named = {each.path: each for each in found.controls}
    assert named["test"].value == "7"  # to be mended there
    assert named["test"].problem.startswith("test: expected")
    assert named["head.hidden"].problem.startswith("head.hidden: expected")
    assert named["seeds"].problem == ""
    assert "once they are right" in found.table


def test_a_message_with_a_semicolon_is_one_and_what_is_of_no_line_is_said_too() -> None:
    error = ConfigError("validation: expected less; lower it; test: too much; seeds: none")
    assert wrong_in(error, "\nvalidation=0.9\ntest=0.9") == (
        [
            Wrong(2, "validation", "validation: expected less; lower it"),
            Wrong(3, "test", "test: too much"),
        ],
        "seeds: none",
    )
    assert "expected section.key=value" in fit_form.explain("images", "--out=x").notes
