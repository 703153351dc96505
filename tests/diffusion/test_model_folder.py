import json
import logging
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import LMSDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import dummy_torch_and_scipy_objects as stand_ins
from diffusers.utils import import_utils
from safetensors.torch import load_file, save_file

from imgalign.diffusion.generate import ImageGenerator
from imgalign.diffusion.loading import load_pipeline
from imgalign.errors import InputError
from imgalign.preferences.records import SamplerSettings

PROMPTS, SEEDS = ["a red house", "two blue boat"], [5, 6]
UNET = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_pipeline_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_pipeline_folder, tmp_path / "model")


def change(path: Path, **settings: Any) -> None:
    """Set these keys of a JSON file; None removes one."""
    old = json.loads(path.read_text())
    new = {name: value for name, value in (old | settings).items() if value != "absent"}
    path.write_text(json.dumps(new))


def drawn(folder: Path, **settings: Any) -> np.ndarray:
    sampler = SamplerSettings(num_inference_steps=3, **settings)
    generator = ImageGenerator(str(folder), device="cpu", dtype="float32")
    images = generator.generate(PROMPTS, seeds=SEEDS, settings=sampler)
    return np.stack([np.asarray(each.image) for each in images])


def expected(pipe: StableDiffusionPipeline, **settings: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    made = pipe(PROMPTS, generator=generators, num_inference_steps=3, **settings)
    return np.stack([np.asarray(image) for image in made.images])


def refusal(folder: Path) -> str:
    """The one line that refuses a model."""
    with pytest.raises(InputError) as caught:
        load_pipeline(str(folder), device=torch.device("cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("model_index.json", {"_class_name": ["evil", "StableDiffusionPipeline"]}),
        ("model_index.json", {"unet": ["os", "system"]}),
        ("model_index.json", {"unet": ["evil", "UNet2DConditionModel"]}),
        ("model_index.json", {"safety_checker": ["evil", "Checker"]}),
        ("model_index.json", {"unet": ["diffusers", "AutoPipelineForText2Image"]}),
        ("model_index.json", {"scheduler": ["diffusers", 5]}),
        ("model_index.json", {"vae": [["a"], "b"]}),
        ("unet/config.json", {"auto_map": {"AutoModel": "evil.Network"}}),
        ("unet/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.Network"}}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
        ("tokenizer/tokenizer_config.json", {"trust_remote_code": True}),
    ],
)
def test_code_that_a_folder_names_is_refused_and_never_run(folder, tmp_path, file, settings):
    mark = tmp_path / "ran"
    for place in (folder, *(folder / name for name in ("unet", "text_encoder", "tokenizer"))):
        for name in ("evil.py", "pipeline.py"):
            (place / name).write_text(f"open({str(mark)!r}, 'w').close()\n")
    change(folder / file, **settings)
    assert file in refusal(folder) or "StableDiffusionPipeline" in refusal(folder)
    assert not mark.exists()


def test_a_text_encoder_that_is_an_adapter_of_some_other_model_is_refused(folder):
    config = folder / "text_encoder" / "adapter_config.json"
    config.write_text(json.dumps({"base_model_name_or_path": "somebody/else", "peft_type": "LORA"}))
    assert "text_encoder: expected a model, got an adapter" in refusal(folder)


def test_an_attention_that_a_config_would_have_fetched_is_not(folder):
    expected = drawn(folder)
    change(folder / "text_encoder" / "config.json", _attn_implementation="some/kernel")
    assert np.array_equal(drawn(folder), expected)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("unet/config.json", {"block_out_channels": [10**9, 10**9]}),
        ("unet/config.json", {"block_out_channels": [10**5, 10**5]}),
        ("unet/config.json", {"block_out_channels": []}),
        ("unet/config.json", {"block_out_channels": "many"}),
        ("unet/config.json", {"norm_num_groups": 0}),
        ("unet/config.json", {"layers_per_block": 10**9}),
        ("unet/config.json", {"sample_size": 10**7}),
        *(
            ("unet/config.json", {"sample_size": size})
            for size in (None, 2.5, "x", 0, -4, True, [8], [8, 0], [8, 8, 8], [8, "x"], {})
        ),
        ("unet/config.json", {"down_block_types": ["NoBlock", "DownBlock2D"]}),
        ("unet/config.json", {"act_fn": "loud"}),
        ("vae/config.json", {"block_out_channels": [10**9]}),
        ("vae/config.json", {"latent_channels": 3}),
        ("text_encoder/config.json", {"hidden_size": 10**9}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**6}),
        ("text_encoder/config.json", {"hidden_act": "loud"}),
        ("text_encoder/config.json", {"vocab_size": "all"}),
        ("text_encoder/config.json", {"eos_token_id": []}),
        ("text_encoder/config.json", {"num_attention_heads": -1}),
        *(
            ("vae/config.json", {"scaling_factor": factor})
            for factor in ("large", None, 0, -0.18, 1e300, 1e-300, float("nan"), float("inf"), True)
        ),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "sideways"}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "curly"}),
        ("scheduler/scheduler_config.json", {"beta_end": 1e9}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": True}),
        ("scheduler/scheduler_config.json", {"trained_betas": "some"}),
        ("scheduler/scheduler_config.json", {"trained_betas": 3}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": "long"}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 0}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": float("nan")}),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}),
        ("scheduler/scheduler_config.json", {"_class_name": "NoScheduler"}),
    ],
)
def test_settings_that_no_model_has_are_refused_in_one_line(folder, file, settings):
    change(folder / file, **settings)
    part = file.partition("/")[0]
    assert part in refusal(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", " " * 5_000_000, "\xff"])
def test_settings_that_are_no_settings_are_refused_in_one_line(folder, text):
    for file in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        before = (folder / file).read_bytes()
        (folder / file).write_bytes(text.encode("latin-1"))
        assert file in refusal(folder)
        (folder / file).write_bytes(before)


def test_a_network_that_is_told_more_than_time_and_prompt_is_refused(tiny_pipeline, tmp_path):
    config = dict(tiny_pipeline.unet.config) | {"num_class_embeds": 5}
    tiny_pipeline.unet = UNet2DConditionModel.from_config(config)
    tiny_pipeline.save_pretrained(tmp_path)
    assert "num_class_embeds" in refusal(tmp_path)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_a_network_that_is_told_its_guidance_draws_as_in_diffusers(
    tiny_pipeline, tmp_path, guidance_scale
):
    config = dict(tiny_pipeline.unet.config) | {"time_cond_proj_dim": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny_pipeline.unet = UNet2DConditionModel.from_config(config)
        tiny_pipeline.unet.time_embedding.cond_proj.weight.data *= 30
    tiny_pipeline.save_pretrained(tmp_path)
    images = drawn(tmp_path, guidance_scale=guidance_scale)
    assert np.array_equal(images, expected(tiny_pipeline, guidance_scale=guidance_scale))


def test_weights_that_lack_a_tensor_are_refused_and_surplus_ones_named(folder, caplog):
    file = folder / "unet" / UNET
    weights = load_file(file)
    save_file(weights | {"extra.weight": torch.ones(2)}, file, metadata={"format": "pt"})
    with caplog.at_level(logging.WARNING):
        load_pipeline(str(folder), device=torch.device("cpu"))
    assert "extra.weight" in caplog.text
    lost = weights.pop("conv_in.bias")
    save_file(weights, file, metadata={"format": "pt"})
    assert "the weights hold" in refusal(folder)
    save_file(weights | {"conv_in.bia": lost}, file, metadata={"format": "pt"})
    assert "conv_in.bias" in refusal(folder)


def test_parts_that_do_not_take_what_the_others_give_are_refused(tiny_pipeline, tmp_path):
    config = dict(tiny_pipeline.unet.config)
    tiny_pipeline.unet = UNet2DConditionModel.from_config(config | {"cross_attention_dim": 24})
    tiny_pipeline.save_pretrained(tmp_path / "narrow")
    assert "expected a text encoder of width 24" in refusal(tmp_path / "narrow")
    tiny_pipeline.unet = UNet2DConditionModel.from_config(config | {"in_channels": 9})
    tiny_pipeline.save_pretrained(tmp_path / "inpainting")
    assert "got 9 to 4" in refusal(tmp_path / "inpainting")


def test_a_tokenizer_without_a_limit_pads_to_what_the_encoder_reads(folder):
    expected = drawn(folder)
    change(folder / "tokenizer" / "tokenizer_config.json", model_max_length="absent")
    assert np.array_equal(drawn(folder), expected)
    change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=10**30)
    assert np.array_equal(drawn(folder), expected)


def test_a_tokenizer_in_the_files_of_older_releases_is_the_same(folder):
    expected = drawn(folder)
    tokenizer = folder / "tokenizer"
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) for pair in model["merges"]]
    (tokenizer / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (tokenizer / "tokenizer.json").unlink()
    assert np.array_equal(drawn(folder), expected)


def test_a_model_without_a_tokenizer_of_its_own_is_refused(folder):
    shutil.rmtree(folder / "tokenizer")
    assert "lacks its part tokenizer/" in refusal(folder)
    (folder / "tokenizer").mkdir()
    assert "expected tokenizer.json" in refusal(folder)


def test_a_tokenizer_of_more_words_than_the_encoder_knows_is_refused(folder):
    path = folder / "tokenizer" / "tokenizer.json"
    settings = json.loads(path.read_text())
    vocab = settings["model"]["vocab"]
    vocab |= {f"more{index}": len(vocab) + index for index in range(5)}
    path.write_text(json.dumps(settings))
    assert "tokens, as the text encoder knows" in refusal(folder)


def test_a_scheduler_that_needs_what_is_not_installed_is_refused(
    tiny_pipeline, tmp_path, monkeypatch
):
    tiny_pipeline.scheduler = LMSDiscreteScheduler()
    tiny_pipeline.save_pretrained(tmp_path)
    # What the package holds in its place without scipy.
    monkeypatch.setattr(diffusers, "LMSDiscreteScheduler", stand_ins.LMSDiscreteScheduler)
    monkeypatch.setattr(import_utils, "_scipy_available", False)
    assert "LMSDiscreteScheduler needs a package" in refusal(tmp_path)


def test_half_precision_files_are_read_where_there_are_no_others(tiny_pipeline, tmp_path):
    tiny_pipeline.to(torch.float16, silence_dtype_warnings=True)
    tiny_pipeline.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    library = StableDiffusionPipeline.from_pretrained(tmp_path, variant="fp16", dtype=torch.float32)
    assert np.array_equal(drawn(tmp_path), expected(library, guidance_scale=1.0))
    part = tmp_path / "unet"
    shutil.copy(part / "diffusion_pytorch_model.fp16.safetensors", part / f"x.{UNET}")
    shutil.copy(
        part / "diffusion_pytorch_model.fp16.safetensors",
        part / "diffusion_pytorch_model.bf16.safetensors",
    )
    assert "expected one variant of the weights, got bf16, fp16" in refusal(tmp_path)


def test_parts_that_are_not_needed_may_be_named_and_missing_or_not_named(folder):
    expected = drawn(folder)
    index = folder / "model_index.json"
    change(
        index,
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    assert np.array_equal(drawn(folder), expected)
    change(index, safety_checker="absent", feature_extractor="absent", image_encoder="absent")
    assert np.array_equal(drawn(folder), expected)


def test_a_network_without_a_size_is_refused_with_what_to_write(folder):
    change(folder / "unet" / "config.json", sample_size=None)
    message = refusal(folder)
    assert "unet/config.json: sample_size" in message
    assert "got None" in message
    change(folder / "unet" / "config.json", sample_size=[8, 8])
    load_pipeline(str(folder), device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("part", "file", "name"),
    [
        ("unet", UNET, "conv_out.bias"),
        ("vae", UNET, "decoder.conv_out.bias"),
        ("text_encoder", "model.safetensors", "final_layer_norm.bias"),
    ],
)
def test_a_part_that_gives_no_finite_numbers_is_refused(folder, part, file, name):
    path = folder / part / file
    weights = load_file(path)
    (name,) = (each for each in weights if each.endswith(name))
    save_file(weights | {name: torch.full_like(weights[name], torch.nan)}, path, {"format": "pt"})
    assert f"its {part} gave numbers that are not finite" in refusal(folder)


def test_weights_in_float8_draw_as_their_numbers_do_in_float32(folder, tmp_path):
    wide = shutil.copytree(folder, tmp_path / "wide")
    for part, file in (("unet", UNET), ("vae", UNET), ("text_encoder", "model.safetensors")):
        narrow = {
            name: each.to(torch.float8_e4m3fn) if each.is_floating_point() else each
            for name, each in load_file(folder / part / file).items()
        }
        save_file(narrow, folder / part / file, {"format": "pt"})
        widened = {
            name: each.float() if each.is_floating_point() else each
            for name, each in narrow.items()
        }
        save_file(widened, wide / part / file, {"format": "pt"})
    assert np.array_equal(drawn(folder), drawn(wide))
