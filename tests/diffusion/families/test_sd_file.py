from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close
from transformers import CLIPTextConfig, CLIPTextModel

from imgalign.diffusion.families.sd_file import clip_tokenizer
from imgalign.diffusion.generate import ImageGenerator
from imgalign.diffusion.loading import load_pipeline, plan_family
from imgalign.errors import InputError
from imgalign.preferences.records import SamplerSettings

WIDTHS = (32, 64, 64, 64)
PROMPTS, SEEDS = ["a photo of a cat", "two boats"], [5, 6]


@pytest.fixture(scope="module")
def first_version() -> StableDiffusionPipeline:
    """Version 1 as published, of smaller widths and with random weights."""
    text = CLIPTextConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=1
    )
    return published(text, pad="<|endoftext|>", widths=WIDTHS, prediction_type="epsilon")


@pytest.fixture(scope="module")
def second_version() -> StableDiffusionPipeline:
    """Version 2 as published, likewise."""
    text = CLIPTextConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=23,
        num_attention_heads=1,
        hidden_act="gelu",
    )
    return published(
        text,
        pad="!",
        widths=(64, 128, 128, 64),
        prediction_type="v_prediction",
        attention_head_dim=(1, 2, 2, 1),
        use_linear_projection=True,
    )


def published(
    text: CLIPTextConfig,
    *,
    pad: str,
    widths: tuple[int, ...],
    prediction_type: str,
    **settings: Any,
) -> StableDiffusionPipeline:
    attending = ("CrossAttnDownBlock2D",) * 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=widths,
            down_block_types=(*attending, "DownBlock2D"),
            cross_attention_dim=64,
            **settings,
        )
        vae = AutoencoderKL(
            block_out_channels=(32,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        encoder = CLIPTextModel(text)
    return StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=encoder,
        tokenizer=clip_tokenizer(pad=pad),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def original(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    """A pipeline's weights under the names that the first release gave them."""
    moved = {"mid_block.attentions.0.": "middle_block.1."}
    for level in range(4):
        for each in range(2):
            down, place = f"down_blocks.{level}.", 3 * level + each + 1
            moved[f"{down}resnets.{each}."] = f"input_blocks.{place}.0."
            moved[f"{down}attentions.{each}."] = f"input_blocks.{place}.1."
        for each in range(3):
            up, place = f"up_blocks.{level}.", 3 * level + each
            moved[f"{up}resnets.{each}."] = f"output_blocks.{place}.0."
            moved[f"{up}attentions.{each}."] = f"output_blocks.{place}.1."
        moved[f"down_blocks.{level}.downsamplers.0.conv."] = f"input_blocks.{3 * level + 3}.0.op."
        last = 1 if level == 0 else 2
        moved[f"up_blocks.{level}.upsamplers.0."] = f"output_blocks.{3 * level + 2}.{last}."
    moved |= {f"mid_block.resnets.{each}.": f"middle_block.{2 * each}." for each in range(2)}
    moved |= {
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
    }
    moved |= {"conv_norm_out.": "out.0.", "conv_out.": "out.2.", "conv_in.": "input_blocks.0.0."}
    inner = {"norm1.": "in_layers.0.", "conv1.": "in_layers.2.", "norm2.": "out_layers.0."}
    inner |= {"conv2.": "out_layers.3.", "time_emb_proj.": "emb_layers.1."}
    inner |= {"conv_shortcut.": "skip_connection."}
    weights = {}
    for name, weight in pipeline.unet.state_dict().items():
        changes = moved if "resnets" not in name else moved | inner
        weights["model.diffusion_model." + renamed(name, changes)] = weight
    moved = {"mid_block.attentions.0.": "mid.attn_1.", "conv_shortcut.": "nin_shortcut."}
    for level in range(4):
        for each in range(3):
            moved[f"down_blocks.{level}.resnets.{each}."] = f"down.{level}.block.{each}."
            moved[f"up_blocks.{level}.resnets.{each}."] = f"up.{3 - level}.block.{each}."
        moved[f"down_blocks.{level}.downsamplers.0."] = f"down.{level}.downsample."
        moved[f"up_blocks.{level}.upsamplers.0."] = f"up.{3 - level}.upsample."
    moved |= {f"mid_block.resnets.{each}.": f"mid.block_{each + 1}." for each in range(2)}
    moved |= {"conv_norm_out.": "norm_out.", "group_norm.": "norm.", "to_out.0.": "proj_out."}
    moved |= {"to_q.": "q.", "to_k.": "k.", "to_v.": "v."}
    for name, weight in pipeline.vae.state_dict().items():
        if "attentions" in name and weight.ndim == 2:  # convolutions of one pixel then
            weight = weight[:, :, None, None]
        weights["first_stage_model." + renamed(name, moved)] = weight
    text = pipeline.text_encoder.state_dict()
    if len(pipeline.text_encoder.encoder.layers) == 23:
        weights |= {
            f"cond_stage_model.model.{name}": each for name, each in open_clip(text).items()
        }
    else:
        weights |= {f"cond_stage_model.transformer.text_model.{name}": text[name] for name in text}
    return {name: weight.clone().contiguous() for name, weight in weights.items()}


def open_clip(text: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder of version 2, which has a last layer that is not read."""
    weights = {
        "positional_embedding": text["embeddings.position_embedding.weight"],
        "token_embedding.weight": text["embeddings.token_embedding.weight"],
        "text_projection": torch.eye(64),
        "logit_scale": torch.ones(()),
    }
    for kind in ("weight", "bias"):
        weights[f"ln_final.{kind}"] = text[f"final_layer_norm.{kind}"]
        for layer in range(24):
            mine, its = f"encoder.layers.{min(layer, 22)}.", f"transformer.resblocks.{layer}."
            three = [text[f"{mine}self_attn.{each}_proj.{kind}"] for each in "qkv"]
            weights[f"{its}attn.in_proj_{kind}"] = torch.cat(three)
            for old, new in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                weights[f"{its}{new}.{kind}"] = text[f"{mine}{old}.{kind}"]
    return weights


def renamed(name: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        name = name.replace(old, new)
    return name


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_pipeline(str(path), device=torch.device("cpu"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("version", "side"), [("first_version", 512), ("second_version", 768)])
def test_a_file_tells_its_size_and_its_tokens_before_it_is_loaded(version, side, tmp_path, request):
    save_file(original(request.getfixturevalue(version)), tmp_path / "dreams.safetensors")
    planned = plan_family(str(tmp_path / "dreams.safetensors"))
    assert planned.image_size() == (side, side)
    assert (planned.max_tokens, planned.num_tokens("a photo of a cat")) == (77, 7)
    assert all(each.is_meta for part in planned.parts.values() for each in part.parameters())


@pytest.mark.parametrize("version", ["first_version", "second_version"])
def test_a_checkpoint_of_one_file_draws_what_its_pipeline_draws(version, tmp_path, request):
    pipeline = request.getfixturevalue(version)
    path = tmp_path / "dreams_v1.safetensors"
    save_file(original(pipeline), path)
    settings = SamplerSettings(num_inference_steps=2, guidance_scale=3.0, width=64, height=64)
    generator = ImageGenerator(str(path), device="cpu", dtype="float32")
    for name in ("text_encoder", "unet", "vae"):
        loaded = getattr(generator.family.pipeline, name)
        assert_close(loaded.state_dict(), getattr(pipeline, name).state_dict(), rtol=0, atol=0)
        for each in loaded.parameters():
            # In the file they lie at any multiple of four bytes, which some processors' sums
            # round differently; the pipeline has its own where torch puts them.
            each.data = each.data.clone()
    made = generator.generate(PROMPTS, seeds=SEEDS, settings=settings)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPTS,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
        num_inference_steps=2,
        guidance_scale=3.0,
        width=64,
        height=64,
    ).images
    for image, other in zip(made, expected, strict=True):
        assert np.array_equal(np.asarray(image.image), np.asarray(other))


def test_the_tokenizer_is_the_one_of_clip():
    tokenizer = clip_tokenizer(pad="!")
    tokens = tokenizer("A photo of a  cat", padding="max_length").input_ids
    # As published with the model: begin, five words, end, and padding to 77.
    assert tokens == [49406, 320, 1125, 539, 320, 2368, 49407] + [0] * 70
    assert len(tokenizer) == 49408


def test_a_file_that_is_no_whole_checkpoint_is_refused(first_version, tmp_path):
    path = tmp_path / "model.safetensors"
    weights = original(first_version)
    lost = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    save_file({name: weight for name, weight in weights.items() if name != lost}, path)
    assert "it lacks weights" in refusal(path)
    save_file({name: each for name, each in weights.items() if "first_stage" not in name}, path)
    assert "without autoencoder" in refusal(path)
    save_file({"conditioner.embedders.0.x": torch.ones(2)}, path)
    assert "SDXL" in refusal(path)
    path.write_bytes(b"torn")
    assert "cannot be read" in refusal(path)
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x02}q\x00.")
    assert "pickles are never read" in refusal(tmp_path / "model.ckpt")
