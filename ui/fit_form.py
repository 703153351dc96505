"""The form of the Learn page: the settings of a fit that matter, all of them, and what is wrong.

No gradio here. Which rankings a fit learns from is chosen beside it (pages/learn.py).
"""

from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from imgalign.config import Setting, load_config, plain, settings_of
from imgalign.errors import ImgalignError
from imgalign.preferences.records import Samples
from ui import settings_table
from ui.controls import Choices, Control, settings_in
from ui.forms import lines_of, wrong_in
from ui.libraries import load_libraries
from ui.recipes import refuse_options

MATTER: Mapping[Samples, Mapping[str, str]] = {
    "images": {
        "test": "Held-out share",
        "validation": "Validation share",
        "split_seed": "Seed of the split",
        "seeds": "Seeds tried",
        "clip": "Starts from",
        "head.hidden": "Width of the head",
        "unfreeze_image_blocks": "Image blocks, too",
        "unfreeze_text_blocks": "Text blocks, too",
        "epochs": "Passes at most",
        "learning_rate": "Learning rate",
    },
    "texts": {
        "test": "Held-out share",
        "validation": "Validation share",
        "split_seed": "Seed of the split",
        "seeds": "Seeds tried",
        "model": "Starts from",
        "train": "What is fitted",
        "epochs": "Passes at most",
        "head_learning_rate": "Rate of the head",
    },
}
"""Names on the page: how prompts are split, then what is fitted, then how."""
CHOICES: Mapping[str, Choices] = {
    "train": (("all weights of the model", plain("full")), ("a LoRA", plain("lora")))
}


class Explained(NamedTuple):
    """What the page shows of the settings: a title, the table of all, what is wrong, controls."""

    title: str
    table: str
    notes: str
    controls: list[Control]


def settings_with(samples: Samples, overrides: str) -> dict[str, Setting]:
    """Every setting of a fit to images or texts; ConfigError or InputError names wrong lines."""
    lines = lines_of(overrides)
    refuse_options(lines)
    load_libraries()
    from reward_models.outcome import SplitConfig
    from reward_models.text_training import TextFitConfig
    from reward_models.training import FitConfig

    kind: type[SplitConfig] = FitConfig if samples == "images" else TextFitConfig
    config = load_config(kind, None, lines)
    return {each.path: each for each in settings_of(kind, config)}


def explain(samples: Samples, overrides: str) -> Explained:
    """What the page shows of the form; an error stands at the line and at the control it is of."""
    found = settings_in(lambda changes: settings_with(samples, changes), overrides)
    controls = [
        found.control(path, name, CHOICES.get(path, ()))
        for path, name in MATTER[samples].items()
        if path in found.now
    ]
    try:
        settings = list(settings_with(samples, overrides).values())
    except ImgalignError as error:
        wait = "<p>They are shown here once they are right.</p>"
        return Explained("Settings", wait, problems(error, overrides), controls)
    return Explained(settings_table.title(settings), settings_table.table(settings), "", controls)


def problems(error: ImgalignError, overrides: str) -> str:
    """What is wrong in each line of the overrides, as HTML."""
    wrong, rest = wrong_in(error, overrides)
    said = [f"<b>Line {each.line}.</b> {escape(each.said)}" for each in wrong]
    said += [escape(rest)] if rest else []
    return "".join(f'<p role="alert">{each}</p>' for each in said)
