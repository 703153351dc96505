import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from lora_files import ATTENTION, TEXT, diffusers, kohya, random_matrices, write, write_peft_folder
from safetensors.torch import load_file, save_file

from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.generate import ImageGenerator
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.errors import CheckpointError, InputError
from imgalign.preferences.records import SamplerSettings

FP8 = torch.float8_e4m3fn
PROMPTS, SEEDS = ["a red house", "two blue boat"], [5, 6]
THREE_STEPS = SamplerSettings(num_inference_steps=3)


@pytest.fixture
def matrices(tiny_pipeline):
    return random_matrices(tiny_pipeline.unet, ATTENTION)


@pytest.fixture
def drawn_with(tiny_pipeline_folder):
    """What imgalign draws with an adapter."""

    def pixels(adapter: Path | None) -> np.ndarray:
        generator = ImageGenerator(
            str(tiny_pipeline_folder), adapter, device="cpu", dtype="float32"
        )
        images = generator.generate(PROMPTS, seeds=SEEDS, settings=THREE_STEPS)
        return np.stack([np.asarray(each.image) for each in images])

    return pixels


@pytest.fixture
def expected_with(tiny_pipeline_folder):
    """What diffusers itself draws with LoRA weights that it accepts, a file or tensors."""

    def pixels(weights, **settings) -> np.ndarray:
        pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder)
        pipe.set_progress_bar_config(disable=True)
        with warnings.catch_warnings():
            # It reads names in mixed files too short, says so, and adapts the right layers.
            warnings.filterwarnings("ignore", "While injecting the PEFT adapters")
            pipe.load_lora_weights(weights, **settings)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
        made = pipe(PROMPTS, generator=generators, num_inference_steps=3, guidance_scale=1.0)
        return np.stack([np.asarray(image) for image in made.images])

    return pixels


@pytest.fixture
def refusal(drawn_with):
    """The line that refuses an adapter."""

    def message(adapter: Path) -> str:
        with pytest.raises((CheckpointError, InputError)) as caught:
            drawn_with(adapter)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


def test_a_kohya_file_under_its_own_name_with_a_text_encoder_draws_as_in_diffusers(
    tiny_pipeline, drawn_with, expected_with, tmp_path
):
    unet = random_matrices(
        tiny_pipeline.unet, (*ATTENTION, "conv1", "proj_in"), ranks={"to_q": 4, "conv1": 3}
    )
    text = random_matrices(tiny_pipeline.text_encoder, TEXT)
    file = write(tmp_path / "styles" / "my_style_v1.safetensors", kohya(unet, text))
    expected = expected_with(load_file(file))
    assert np.array_equal(drawn_with(file), expected)
    assert np.array_equal(drawn_with(file.parent), expected), "the only file of a folder"
    without_text = write(tmp_path / "unet.safetensors", kohya(unet))
    assert not np.array_equal(drawn_with(without_text), expected)


def test_a_layer_adds_alpha_over_rank_times_its_matrices(
    tiny_pipeline_folder, tiny_pipeline, drawn_with, tmp_path
):
    unet = random_matrices(tiny_pipeline.unet, (*ATTENTION, "proj_in"), ranks={"to_q": 4})
    text = random_matrices(tiny_pipeline.text_encoder, TEXT)
    alphas = {"attn1.to_v": 4.0, "to_q": 0.5, "v_proj": 3.0}
    file = write(tmp_path / "style.safetensors", kohya(unet, text, alphas=alphas))
    for network, matrices in ((tiny_pipeline.unet, unet), (tiny_pipeline.text_encoder, text)):
        for name, (down, up) in matrices.items():
            alpha = next((alphas[end] for end in alphas if name.endswith(end)), 1.0)
            added = alpha / len(down) * up.flatten(1) @ down.flatten(1)
            weight = network.get_submodule(name).weight
            weight.data += added.view_as(weight)
    tiny_pipeline.save_pretrained(tmp_path / "merged")
    merged = ImageGenerator(str(tmp_path / "merged"), device="cpu", dtype="float32")
    images = merged.generate(PROMPTS, seeds=SEEDS, settings=THREE_STEPS)
    expected = np.stack([np.asarray(each.image) for each in images]).astype(int)
    assert np.abs(drawn_with(file).astype(int) - expected).max() <= 1
    assert np.abs(drawn_with(None).astype(int) - expected).max() > 9


def test_a_diffusers_file_with_text_encoder_and_mixed_ranks_draws_as_in_diffusers(
    tiny_pipeline, drawn_with, expected_with, tmp_path
):
    unet = random_matrices(tiny_pipeline.unet, ATTENTION, ranks={"to_q": 4})
    text = random_matrices(tiny_pipeline.text_encoder, TEXT)
    file = write(tmp_path / "pytorch_lora_weights.safetensors", diffusers(unet, text))
    assert np.array_equal(drawn_with(tmp_path), expected_with(load_file(file)))


def test_a_file_that_names_text_model_is_the_same_as_one_that_does_not(
    tiny_pipeline, drawn_with, tmp_path
):
    text = random_matrices(tiny_pipeline.text_encoder, TEXT)
    unlike = {f"text_model.{name}": pair for name, pair in text.items()}
    unet = random_matrices(tiny_pipeline.unet, ATTENTION)
    one = write(tmp_path / "one.safetensors", diffusers(unet, text))
    other = write(tmp_path / "other.safetensors", diffusers(unet, unlike))
    assert np.array_equal(drawn_with(one), drawn_with(other))


def test_the_old_names_of_attention_processors_are_read(matrices, drawn_with, tmp_path):
    new = write(tmp_path / "new.safetensors", diffusers(matrices))
    layers = {}
    for name, (down, up) in matrices.items():
        stem, _, end = name.removesuffix(".0").rpartition(".")
        layers[f"unet.{stem}.processor.{end}_lora.down.weight"] = down
        layers[f"unet.{stem}.processor.{end}_lora.up.weight"] = up
    old = write(tmp_path / "old.safetensors", layers)
    assert np.array_equal(drawn_with(old), drawn_with(new))


def test_a_peft_folder_is_scaled_as_its_settings_say(
    tiny_pipeline, drawn_with, expected_with, tmp_path
):
    unet = random_matrices(tiny_pipeline.unet, ATTENTION, ranks={"attn2.to_q": 4})
    folder = write_peft_folder(
        tmp_path / "peft",
        unet,
        lora_alpha=6,
        rank_pattern={"attn2.to_q": 4},
        alpha_pattern={"to_v": 3},
    )
    # diffusers reads these settings from the header of a file of its own.
    settings = json.loads((folder / "adapter_config.json").read_text())
    names = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
    header = json.dumps({f"unet.{name}": settings[name] for name in names})
    file = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(diffusers(unet), file, metadata={"lora_adapter_metadata": header})
    expected = expected_with(tmp_path)
    assert np.array_equal(drawn_with(folder), expected)
    assert np.array_equal(drawn_with(tmp_path), expected)
    plain = write(tmp_path / "plain" / "style.safetensors", diffusers(unet))
    assert not np.array_equal(drawn_with(plain), expected)


@pytest.mark.parametrize(
    "pattern",
    [
        r".*attn2.to_q",
        r".*\.attn2\.to_q$",
        r"^down_blocks.*to_q",
        r"^down_blocks\.1\.attentions\.0\.transformer_blocks\.0\.attn1\.to_q$",
        r"attn2.to_q",
        r"attn2.to_.",
        r"attentions.0.*to_v",
    ],
)
def test_a_pattern_of_alphas_means_the_layers_that_it_means_to_peft(
    tiny_pipeline, drawn_with, expected_with, tmp_path, pattern
):
    unet = random_matrices(tiny_pipeline.unet, ATTENTION)
    folder = write_peft_folder(
        tmp_path / "peft", unet, lora_alpha=2, alpha_pattern={pattern: 9, "to_q": 5}
    )
    settings = json.loads((folder / "adapter_config.json").read_text())
    names = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
    header = json.dumps({f"unet.{name}": settings[name] for name in names if name in settings})
    file = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(diffusers(unet), file, metadata={"lora_adapter_metadata": header})
    assert np.array_equal(drawn_with(folder), expected_with(tmp_path))
    other = write_peft_folder(tmp_path / "no", unet, lora_alpha=2, alpha_pattern={"to_q": 5})
    assert not np.array_equal(drawn_with(folder), drawn_with(other))


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_file_in_float8_draws_as_its_numbers_do_in_float32(matrices, drawn_with, tmp_path, kind):
    narrow = {name: layer.to(kind) for name, layer in kohya(matrices, alphas={"to_q": 2}).items()}
    wide = {name: layer.float() for name, layer in narrow.items()}
    one = write(tmp_path / "narrow.safetensors", narrow)
    other = write(tmp_path / "wide.safetensors", wide)
    assert np.array_equal(drawn_with(one), drawn_with(other))
    assert not np.array_equal(drawn_with(one), drawn_with(None))


def test_a_root_scaled_peft_adapter_divides_by_the_root_of_the_rank(matrices, drawn_with, tmp_path):
    root = write_peft_folder(tmp_path / "root", matrices, r=2, lora_alpha=3, use_rslora=True)
    plain = write(
        tmp_path / "plain.safetensors",
        diffusers({name: (down, up * 3 / 2**0.5) for name, (down, up) in matrices.items()}),
    )
    difference = drawn_with(root).astype(int) - drawn_with(plain).astype(int)
    assert np.abs(difference).max() <= 1


def test_a_layer_that_lacks_a_matrix_is_left_out_and_named(matrices, drawn_with, tmp_path, caplog):
    torn = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    layers = diffusers(matrices)
    del layers[f"unet.{torn}.lora_B.weight"]
    file = write(tmp_path / "torn.safetensors", layers)
    whole = {name: pair for name, pair in matrices.items() if name != torn}
    expected = drawn_with(write(tmp_path / "whole.safetensors", diffusers(whole)))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(drawn_with(file), expected)
    assert f"1 of {len(matrices)} layers" in caplog.text
    assert torn in caplog.text


def test_what_is_not_lora_of_this_model_is_refused(matrices, refusal, tmp_path):
    file = tmp_path / "style.safetensors"
    write(file, {})
    assert "without a tensor" in refusal(file)
    layers = diffusers(matrices)
    down = [name for name in layers if name.endswith("lora_A.weight")]
    write(file, {name: layers[name] for name in down})
    assert "no layer has both matrices" in refusal(file)
    write(file, layers | {down[0].replace("lora_A.weight", "dora_scale"): torch.ones(32, 1)})
    assert "DoRA" in refusal(file)
    write(file, layers | {"lora_unet_conv_in.hada_w1_a": torch.ones(2, 2)})
    assert "LoHa" in refusal(file)
    write(file, layers | {"unet.conv_in.bias": torch.ones(16)})
    assert "unet.conv_in.bias" in refusal(file)
    write(file, layers | {"lora_te2_text_model_x.lora_down.weight": torch.ones(2, 2)})
    assert f"1 of the adapter's {len(layers) + 1} matrices have no place" in refusal(file)
    write(file, layers | {down[0]: torch.full_like(layers[down[0]], torch.nan)})
    assert "finite" in refusal(file)
    write(file, layers | {down[0]: torch.full_like(layers[down[0]], torch.nan).to(FP8)})
    assert "finite" in refusal(file)
    write(file, layers | {down[0]: torch.ones_like(layers[down[0]], dtype=torch.int8)})
    assert "got int8" in refusal(file)
    write(file, layers | {down[0]: torch.ones(2, 31)})
    assert "size mismatch" in refusal(file)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "LOKR"}, "LOKR"),
        ({"lora_alpha": "many"}, "lora_alpha"),
        ({"lora_alpha": True}, "expected numbers as lora_alpha"),
        ({"alpha_pattern": {"to_q": True}}, "expected numbers as lora_alpha and alpha_pattern"),
        ({"alpha_pattern": {"(.*a+)+b": 3}}, "'(.*a+)+b'"),
        ({"alpha_pattern": {"to_[q": 3}}, "'to_[q'"),
        ({"alpha_pattern": {"": 3}}, "alpha_pattern"),
        ({"alpha_pattern": {"a" * 10_000: 3}}, "alpha_pattern"),
        ({"alpha_pattern": {f"a{index}": 3 for index in range(5000)}}, "at most 4,096 patterns"),
        ({"alpha_pattern": {"to_q": 3, "to_z": 3}}, "'to_z' matches none of its layers"),
        ({"alpha_pattern": {"^to_q": 3}}, "'^to_q' matches none of its layers"),
        ({"alpha_pattern": {".*a" * 80: 3}}, "matches none of its layers"),
        ({"alpha_pattern": {"(a+)+$": "x"}}, "alpha_pattern"),
        ({"bias": "all"}, "bias"),
    ],
)
def test_peft_settings_that_would_not_be_applied_are_refused(
    matrices, refusal, tmp_path, settings, message
):
    folder = write_peft_folder(tmp_path / "peft", matrices, **settings)
    assert message in refusal(folder)


def test_peft_settings_that_are_no_settings_are_refused(matrices, refusal, tmp_path):
    folder = write_peft_folder(tmp_path / "peft", matrices)
    for text in ("[" * 100_000, "[]", "{", " " * 5_000_000):
        (folder / "adapter_config.json").write_text(text)
        assert "adapter_config.json" in refusal(folder)


def test_a_policy_does_not_go_on_from_an_adapter_that_is_not_whole(tiny_pipeline, tmp_path):
    policy = DiffusionPolicy(tiny_pipeline, LoraDiffusionConfig())
    policy.save(tmp_path)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    layers = load_file(file)
    lost = next(iter(layers))
    write(file, {name: layer for name, layer in layers.items() if name != lost})
    with pytest.raises(CheckpointError, match="does not fit the policy's lora settings"):
        policy.load(tmp_path)
