"""Claims: every layer is found by the tools that a file is for, and says what they show."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from lora_files import random_matrices
from lora_loaders import automatic1111_name, comfyui_names, comfyui_patches, original_names
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from imgalign.diffusion.adapters import Component, Layer
from imgalign.diffusion.families.sd import StableDiffusion
from imgalign.diffusion.layouts import (
    check_one_network,
    kohya_header,
    write_diffusers,
    write_kohya,
    write_peft,
)
from imgalign.diffusion.model_names import STORYBOOK
from imgalign.errors import InputError

UNET = Component(name="unet", network=None, kohya_prefix="lora_unet_")
ADAPTED = ("to_q", "to_k", "to_v", "to_out.0", "conv2")


def layers_of(
    network: nn.Module, ends: tuple[str, ...], *, alpha: float = 3.0, component: str = "unet"
) -> list[Layer]:
    return [
        Layer(component=component, name=name, down=down, up=up, alpha=alpha)
        for name, (down, up) in random_matrices(network, ends).items()
    ]


def adaptable(network: nn.Module) -> list[str]:
    return [n for n, each in network.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)]


@pytest.fixture(scope="module")
def storybook() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(STORYBOOK / "unet")


@pytest.fixture(scope="module")
def stable_diffusion_1() -> UNet2DConditionModel:
    """Its UNet without memory for weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def test_comfyui_finds_every_layer_of_a_kohya_file_and_leaves_no_key(storybook, tmp_path):
    layers = layers_of(storybook, ADAPTED)
    write_kohya(layers, [UNET], tmp_path / "a.safetensors", dtype=None, header={})
    patches, left = comfyui_patches(load_file(tmp_path / "a.safetensors"), storybook.config)
    assert left == set()
    places = original_names(storybook.config)
    assert patches.keys() == {places[layer.name] for layer in layers}
    for layer in layers:
        down, up, scale = patches[places[layer.name]]
        assert torch.equal(down, layer.down)
        assert torch.equal(up, layer.up)
        assert scale == 3.0 / 2


def test_comfyui_finds_no_attention_layer_of_a_diffusers_file(storybook, tmp_path):
    """Why the layout of kohya is needed: ComfyUI looks for `.processor.to_q`."""
    write_diffusers(layers_of(storybook, ADAPTED[:4]), tmp_path / "a.safetensors", dtype=None)
    tensors = load_file(tmp_path / "a.safetensors")
    patches, left = comfyui_patches(tensors, storybook.config)
    assert patches == {}
    assert left == tensors.keys()


def test_every_layer_of_stable_diffusion_1_has_a_name_that_comfyui_knows(stable_diffusion_1):
    known, places = (
        comfyui_names(stable_diffusion_1.config),
        original_names(stable_diffusion_1.config),
    )
    names = adaptable(stable_diffusion_1)
    assert len(names) > 250
    assert {name: known.get(UNET.kohya_name(name)) for name in names} == {
        name: places[name] for name in names
    }


def test_automatic1111_takes_each_name_for_the_layer_that_comfyui_takes_it_for(stable_diffusion_1):
    places = original_names(stable_diffusion_1.config)
    for name in adaptable(stable_diffusion_1):
        found = automatic1111_name(UNET.kohya_name(name))
        assert found == places[name].replace(".", "_"), name


def test_layers_of_a_text_encoder_have_the_level_that_few_encoders_have(tiny_pipeline, tmp_path):
    layers = layers_of(tiny_pipeline.text_encoder, ("q_proj",), component="text_encoder")
    family = StableDiffusion(tiny_pipeline)
    write_kohya(layers, family.adaptable, tmp_path / "a.safetensors", dtype=None, header={})
    assert {name.partition(".")[0] for name in load_file(tmp_path / "a.safetensors")} == {
        f"lora_te_text_model_encoder_layers_{number}_self_attn_q_proj" for number in (0, 1)
    }


def test_a_kohya_file_has_an_alpha_for_each_layer_in_float32(tiny_pipeline, tmp_path):
    layers = layers_of(tiny_pipeline.unet, ("to_q", "conv1"), alpha=1 / 3)
    write_kohya(layers, [UNET], tmp_path / "a.safetensors", dtype=torch.float16, header={})
    tensors = load_file(tmp_path / "a.safetensors")
    alphas = {name: each for name, each in tensors.items() if name.endswith(".alpha")}
    assert len(alphas) == len(layers)
    assert {(each.dtype, each.shape, float(each)) for each in alphas.values()} == {
        (torch.float32, (), float(torch.tensor(1 / 3)))
    }
    assert {each.dtype for name, each in tensors.items() if name not in alphas} == {torch.float16}


def test_the_first_matrix_of_a_convolution_has_its_kernel_and_the_second_is_one_pixel(
    tiny_pipeline, tmp_path
):
    layers = layers_of(tiny_pipeline.unet, ("conv1",))
    write_kohya(layers, [UNET], tmp_path / "a.safetensors", dtype=None, header={})
    tensors = load_file(tmp_path / "a.safetensors")
    layer = "lora_unet_down_blocks_1_resnets_0_conv1"
    assert tensors[f"{layer}.lora_down.weight"].shape == (2, 16, 3, 3)
    assert tensors[f"{layer}.lora_up.weight"].shape == (32, 2, 1, 1)


def test_the_header_says_what_the_tools_show(tiny_pipeline, tmp_path):
    family = StableDiffusion(tiny_pipeline)
    layers = layers_of(tiny_pipeline.unet, ("to_q",))
    header = kohya_header(layers, family, name="first", base="cats")
    write_kohya(layers, [UNET], tmp_path / "a.safetensors", dtype=None, header=header)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == header
    assert header["ss_network_module"] == "networks.lora"
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("2", "3")
    assert (header["ss_v2"], header["ss_base_model_version"]) == ("False", "sd_v1")
    assert (header["ss_output_name"], header["ss_sd_model_name"]) == ("first", "cats")
    assert header["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["modelspec.resolution"] == "16x16"
    assert header["modelspec.prediction_type"] == "epsilon"
    mixed = [*layers, *layers_of(tiny_pipeline.unet, ("to_v",), alpha=4.0)]
    assert kohya_header(mixed, family, name="a", base="b")["ss_network_alpha"] == "Dynamic"


def test_equal_layers_give_equal_bytes(tiny_pipeline, tmp_path):
    layers = layers_of(tiny_pipeline.unet, ADAPTED)
    header = {f"key {number}": "value" for number in range(20)}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_kohya(layers, [UNET], tmp_path / name / "kohya", dtype=None, header=header)
        write_diffusers(layers, tmp_path / name / "diffusers", dtype=None)
        write_peft(layers, tmp_path / name, dtype=None, base=None)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
        if path.suffix != ".json":
            assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 8 == 0


def test_numbers_too_large_for_a_type_are_refused(tiny_pipeline, tmp_path):
    layer = layers_of(tiny_pipeline.unet, ("to_q",))[0]
    layer.up[0, 0] = 1e5
    with pytest.raises(InputError, match=r"to_q is too large for float16; use bfloat16 or float32"):
        write_kohya([layer], [UNET], tmp_path / "a.safetensors", dtype=torch.float16, header={})


def test_a_folder_of_peft_is_of_one_network(tiny_pipeline):
    unet = layers_of(tiny_pipeline.unet, ("to_q",))
    check_one_network(unet, "unet")
    text = layers_of(tiny_pipeline.text_encoder, ("q_proj",), component="text_encoder")
    with pytest.raises(InputError, match="layers of text_encoder too"):
        check_one_network([*unet, *text], "unet")


def test_peft_settings_are_json_that_any_tool_reads(tiny_pipeline, tmp_path):
    layers = layers_of(tiny_pipeline.unet, ("to_q",))
    write_peft(layers, tmp_path, dtype=None, base="owner/model")
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 2, 3)
    assert settings["target_modules"] == sorted(layer.name for layer in layers)
    assert settings["base_model_name_or_path"] == "owner/model"


@pytest.mark.parametrize(
    ("linear", "predicts", "version", "architecture"),
    [
        (False, "epsilon", "sd_v1", "stable-diffusion-v1/lora"),
        (True, "epsilon", "sd_v2", "stable-diffusion-v2-512/lora"),
        (True, "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
    ],
)
def test_versions_of_stable_diffusion_are_told_apart(
    tiny_pipeline, linear, predicts, version, architecture
):
    tiny_pipeline.unet.register_to_config(use_linear_projection=linear)
    tiny_pipeline.scheduler.register_to_config(prediction_type=predicts)
    facts = StableDiffusion(tiny_pipeline).kohya_facts()
    assert facts["ss_base_model_version"] == version
    assert facts["ss_v2"] == str(linear)
    assert facts["modelspec.architecture"] == architecture
