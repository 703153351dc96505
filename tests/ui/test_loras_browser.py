"""Taking a LoRA on the Generate page, in a real browser."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from generate_page import choose, generate, open_page
from lora_files import ATTENTION, diffusers, random_matrices, write
from waited import expect

from imgalign.diffusion.loading import load_pipeline

pytestmark = [
    pytest.mark.browser,
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture
def style(tmp_path: Path, model: Path) -> Path:
    """A LoRA that somebody was sent."""
    unet = load_pipeline(str(model), device=torch.device("cpu")).unet
    (tmp_path / "sent").mkdir()
    file = tmp_path / "sent" / "style <b>.safetensors"
    return write(file, diffusers(random_matrices(unet, ATTENTION)))


def test_a_lora_is_sent_compared_with_the_base_and_removed(style: Path, page: Any, address: str):
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_page(page, address)
    page.get_by_text('is taken under "LoRA files"').wait_for()
    page.get_by_role("button", name="LoRA files").click()
    other = style.with_name("notes.safetensors")
    other.write_bytes(b"no matrices")
    page.set_input_files(".drop input", other)
    alert = page.locator("#lora-files [role=alert]")
    expect(alert).to_contain_text("notes.safetensors: expected a LoRA of the model")
    page.set_input_files(".drop input", style)
    expect(page.locator("#lora-files [role=status]")).to_have_text("style _b_ can be chosen above.")
    expect(alert).to_be_hidden()
    expect(page.locator("#checkpoint input")).to_have_value("style _b_")
    expect(page.locator(".none-yet")).to_have_count(0)
    page.locator("#strength-1").wait_for()
    generate(page, prompts="a red house", images_each=1, steps=2)
    page.locator(".co-cell img").nth(1).wait_for()
    expect(page.locator(".co-table b")).to_have_text(["Base", "style _b_"])
    sources = page.locator(".co-cell img").evaluate_all("all => all.map((each) => each.src)")
    assert len(set(sources)) == 2
    page.get_by_role("button", name="Send to ranking").click()
    page.get_by_text("Stored 1 item in the project default-compare").wait_for()

    page.reload()
    page.wait_for_function("() => document.querySelector('#checkpoint input')?.value")
    choose(page, "checkpoint", "style _b_")
    page.get_by_role("button", name="LoRA files").click()
    page.get_by_role("button", name="Remove style _b_", exact=True).click()
    page.get_by_role("button", name="Remove style _b_ for good").click()
    expect(page.locator("#lora-files li")).to_have_count(0)
    expect(page.locator("#checkpoint input")).to_have_value(re.compile("^Base model only"))
    assert errors == []
