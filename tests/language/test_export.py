"""Claims: what a language run trained leaves for plain peft and transformers, says the same there,
and has a model card; layouts of images are refused by name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from language_runs import PROMPTS, language_settings, start_language, write_talker
from peft import PeftModel
from policies import peft_as_it_is
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from imgalign.cli.main import main
from imgalign.errors import InputError
from imgalign.language.export import export_language
from imgalign.language.generate import TextGenerator
from imgalign.report.card import model_card
from imgalign.runs.exporting import Export
from imgalign.runs.trained import find_weights

STEPS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_talker(tmp_path_factory.mktemp("talker") / "model")


def trained(model: Path, out: Path, kind: str) -> Path:
    rate = {"lora": 0.03, "full": 3e-3}[kind]
    settings = language_settings(
        model, policy={"train": kind}, optimizer={"learning_rate": rate}, iterations=2
    )
    start_language(out, settings)
    return out


@pytest.fixture(scope="module")
def lora(model, tmp_path_factory) -> Path:
    return trained(model, tmp_path_factory.mktemp("run") / "lora", "lora")


@pytest.fixture(scope="module")
def full(model, tmp_path_factory) -> Path:
    return trained(model, tmp_path_factory.mktemp("run") / "full", "full")


def ours(model: Path, weights: Path | None) -> list[list[int]]:
    """The likeliest tokens after each prompt, by the model that imgalign itself loads."""
    generator = TextGenerator(str(model), dtype="float32")  # that of what is exported
    generator.use(weights)
    assert generator._loaded is not None
    return greedy(generator._loaded.model, generator._loaded.tokenizer)


def greedy(network: Any, tokenizer: Any) -> list[list[int]]:
    found = []
    settings = GenerationConfig(do_sample=False, max_new_tokens=STEPS, eos_token_id=None)
    settings.pad_token_id = 0
    for prompt in PROMPTS:
        before = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        asked = torch.tensor([before])
        with torch.no_grad():
            said = network.generate(
                input_ids=asked, attention_mask=torch.ones_like(asked), generation_config=settings
            )
        found.append(said[0, len(before) :].tolist())
    return found


def exported(run: Path, layout: Any, out: Path, **options: Any) -> Export:
    return export_language(run, layout, card=model_card, out=out, **options)


def test_an_adapter_says_the_same_in_plain_peft(lora, model, tmp_path):
    made = exported(lora, "peft", tmp_path / "out")
    assert sorted(path.name for path in made.folder.iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "export.json"),
    ]
    with peft_as_it_is():
        plain = AutoModelForCausalLM.from_pretrained(model)
        adapted = PeftModel.from_pretrained(plain, made.folder).eval()
    theirs = greedy(adapted, AutoTokenizer.from_pretrained(model))
    assert theirs == ours(model, find_weights(lora))
    assert theirs != ours(model, None)


@pytest.mark.parametrize("layout", ["transformers", "merged"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_whole_model_says_the_same_in_plain_transformers(kind, layout, request, model, tmp_path):
    run = request.getfixturevalue(kind)
    made = exported(run, layout, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(made.folder).eval()
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]
    theirs = greedy(plain, AutoTokenizer.from_pretrained(made.folder))
    assert theirs == ours(model, find_weights(run))
    assert theirs != ours(model, None)


def test_half_precision_is_what_the_files_hold(lora, tmp_path):
    made = exported(lora, "merged", tmp_path / "out", dtype="bfloat16")
    assert json.loads((made.folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(made.folder).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "layout", "said"),
    [
        ("lora", "kohya", "is of a language model; use --format peft, transformers or merged"),
        ("full", "diffusers", "is of a language model; use --format transformers or merged"),
        ("full", "peft", "has all weights of the model and no adapter; use --format transformers"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_with_those_that_do(
    kind, layout, said, request, tmp_path
):
    with pytest.raises(InputError, match=re.escape(said)):
        exported(request.getfixturevalue(kind), layout, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_says_what_it_is_and_names_no_folder_of_this_machine(lora, full, tmp_path):
    for run, layout in ((lora, "peft"), (lora, "merged"), (full, "transformers")):
        made = exported(run, layout, tmp_path / f"{run.name}-{layout}")
        card = (made.folder / "README.md").read_text()
        assert "pipeline_tag: text-generation" in card
        assert ("library_name: peft" in card) == (layout == "peft")
        assert ("- lora" in card) == (layout == "peft")
        assert "AutoModelForCausalLM" in card
        assert "max_new_tokens=8, temperature=1" in card
        assert "| algorithm | `grpo` |" in card
        assert "image" not in card.replace("text-to-image", "?")
        assert str(tmp_path.parent) not in card
        code = card.partition("```python\n")[2].partition("```")[0]
        compile(code, "card", "exec")


def test_the_command_exports_a_language_run_and_refuses_its_layouts_for_images_in_one_line(
    lora, tmp_path, capsys
):
    out = str(tmp_path / "out")
    assert main(["export", str(lora), "--format", "peft", "--out", out]) == 0
    assert "layers of rank 16" in capsys.readouterr().out
    assert main(["export", str(lora), "--format", "kohya"]) == 2
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("exporting:")
    ]
    assert line.startswith("error: export kohya:")
    # What was exported is known for what it is, without its run.
    assert main(["export", out, "--format", "diffusers"]) == 2
    assert "is of a language model" in capsys.readouterr().err
