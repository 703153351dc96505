"""Literal texts of AUTOMATIC1111, Forge, InvokeAI, SwarmUI, Fooocus, NovelAI and diffusers."""

import json
from typing import Any

import pytest

from imgalign.preferences.foreign.generation_facts import (
    GenerationFacts,
    parse_invokeai,
    parse_json_parameters,
    parse_parameters,
    parse_settings,
    scale_of,
    seed_of,
    steps_of,
    weights_name,
    without_networks,
)

A1111 = """\
a (red:1.2) fox in the snow,
oil on canvas <lora:old-masters:0.8>
Negative prompt: blurry,
Steps: of a ladder
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 3620085674, \
Size: 512x768, Model hash: 3d1b3c42ec, Model: dreamshaper_8, \
ControlNet 0: "Module: tile, Seed: 1, Model: control [3b86], Weight: 0.6", \
Lora hashes: "old-masters: 50b3f6a2ecf7", Version: v1.9.4"""

FORGE = """\
a lighthouse
Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, \
Seed: 12345, Size: 896x1152, Model hash: c161224931, Model: flux1-dev-bnb-nf4, \
Version: f2.0.1v1.10.1-previous-535-gb20cb4bf0, Diffusion in Low Bits: bnb-nf4"""


def test_the_text_of_automatic1111_is_taken_apart():
    assert parse_parameters(A1111) == GenerationFacts(
        prompt="a (red:1.2) fox in the snow, oil on canvas",
        negative_prompt="blurry, Steps: of a ladder",
        seed=3620085674,
        steps=28,
        guidance_scale=6.5,
        sampler="DPM++ 2M Karras",
        model="dreamshaper_8",
        adapter="old-masters:0.8",
    )


def test_the_text_of_forge_has_no_negative_prompt_and_two_scales():
    assert parse_parameters(FORGE) == GenerationFacts(
        prompt="a lighthouse",
        seed=12345,
        steps=20,
        guidance_scale=1.0,
        sampler="Euler Simple",
        model="flux1-dev-bnb-nf4",
    )


def test_a_prompt_alone_or_without_settings_is_a_prompt():
    assert parse_parameters("a fox") == GenerationFacts(prompt="a fox")
    assert parse_parameters("a fox\r\nNegative prompt: cat") == GenerationFacts(
        prompt="a fox", negative_prompt="cat"
    )
    assert parse_parameters("Steps: 20, Seed: 5") == GenerationFacts(steps=20, seed=5)
    assert parse_parameters("") == GenerationFacts()


def test_settings_may_hold_commas_and_colons_in_quotes():
    text = (
        'Steps: 20, Model: "a, b: \\"c\\"", TI hashes: "x: 1, Seed: 2", Seed: 3, Empty: , Seed: 4, '
    )
    text += 'Open: "a, b'
    assert parse_settings(text) == {
        "Steps": "20",
        "Model": 'a, b: "c"',
        "TI hashes": "x: 1, Seed: 2",
        "Seed": "3",
        "Empty": "",
        "Open": "a, b",
    }


def test_long_settings_take_time_in_proportion():
    assert len(parse_settings("a: b, " * 50_000)) == 1
    assert len(parse_settings(':"' * 100_000)) == 1


def test_networks_leave_the_prompt():
    prompt = "a cat, <lora:x:0.5>, <lyco:y>, (b:1.2) <not:this>"
    assert without_networks(prompt) == ("a cat, (b:1.2) <not:this>", "x:0.5, y:1")
    assert without_networks("a cat, , b,") == ("a cat, , b,", None)


INVOKEAI: dict[str, Any] = {
    "app_version": "3.3.0post3",
    "generation_mode": "txt2img",
    "positive_prompt": "landscape",
    "negative_prompt": "low quality",
    "seed": 356120443,
    "cfg_scale": 7.5,
    "steps": 50,
    "scheduler": "dpmpp_2m_sde_k",
    "model": {"model_name": "amixx", "base_model": "sd-1"},
    "loras": [{"lora": {"model_name": "add_detail"}, "weight": 0.75}],
}


def test_the_json_of_invokeai_is_read_in_its_versions():
    expected = GenerationFacts(
        prompt="landscape",
        negative_prompt="low quality",
        seed=356120443,
        steps=50,
        guidance_scale=7.5,
        sampler="dpmpp_2m_sde_k",
        model="amixx",
        adapter="add_detail:0.75",
    )
    assert parse_invokeai(json.dumps(INVOKEAI)) == expected
    newer = INVOKEAI | {"model": {"key": "k", "name": "amixx"}}
    newer |= {"loras": [{"model": {"name": "add_detail"}, "weight": 0.75}]}
    assert parse_invokeai(json.dumps(newer)) == expected
    older = {
        "model_weights": "stable-diffusion-1.5",
        "image": {
            "prompt": [{"prompt": "a fox", "weight": 1.0}],
            "steps": 30,
            "cfg_scale": 7.5,
            "seed": 42,
            "sampler": "k_lms",
        },
    }
    assert parse_invokeai(json.dumps(older)) == GenerationFacts(
        prompt="a fox",
        seed=42,
        steps=30,
        guidance_scale=7.5,
        sampler="k_lms",
        model="stable-diffusion-1.5",
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (  # SwarmUI
            {
                "sui_image_params": {
                    "prompt": "a fox",
                    "negativeprompt": "",
                    "model": "Flux/flux1-dev-fp8",
                    "seed": 2042464333,
                    "steps": 25,
                    "cfgscale": 1.0,
                    "sampler": "euler",
                    "scheduler": "normal",
                }
            },
            {"seed": 2042464333, "steps": 25, "guidance_scale": 1.0, "sampler": "euler"}
            | {"model": "flux1-dev-fp8"},
        ),
        (  # Fooocus
            {
                "prompt": "a fox",
                "negative_prompt": "",
                "seed": "77",
                "steps": 30,
                "guidance_scale": 4,
                "sampler": "dpmpp_2m_sde_gpu",
                "base_model": "juggernautXL_v8",
            },
            {"seed": 77, "steps": 30, "guidance_scale": 4.0, "sampler": "dpmpp_2m_sde_gpu"}
            | {"model": "juggernautXL_v8"},
        ),
        (  # NovelAI
            {"prompt": "a fox", "steps": 28, "scale": 5.0, "seed": 9, "sampler": "k_euler"},
            {"seed": 9, "steps": 28, "guidance_scale": 5.0, "sampler": "k_euler"},
        ),
        (  # the arguments of a pipeline of diffusers
            {"prompt": "a fox", "num_inference_steps": 4, "guidance_scale": 0.0, "seed": 0},
            {"seed": 0, "steps": 4, "guidance_scale": 0.0},
        ),
    ],
)
def test_json_with_other_names_is_understood(values: dict[str, Any], expected: dict[str, Any]):
    found = parse_json_parameters(json.dumps(values))
    assert found == GenerationFacts(prompt="a fox", **expected)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 5000, '{"prompt": ["a"], "seed": {}}']
)
def test_what_is_not_understood_is_unknown(text: str):
    assert parse_json_parameters(text) == GenerationFacts()
    assert parse_invokeai(text) == GenerationFacts()


def test_numbers_that_cannot_be_are_unknown():
    assert [seed_of(each) for each in (0, "7", 2**63, 2**64 - 1, 5.0)] == [0, 7, 0, 2**63 - 1, 5]
    assert [seed_of(each) for each in (-1, 2**64, "x", None, True, 0.5, "9" * 30)] == [None] * 7
    assert [steps_of(each) for each in (1, "20", 0, -5, 2**31, [])] == [
        1,
        20,
        None,
        None,
        None,
        None,
    ]
    assert [scale_of(each) for each in (0, "7.5", 1)] == [0.0, 7.5, 1.0]
    unknown = ("nan", float("inf"), -1, True, None, 10**400, "1e999")
    assert [scale_of(each) for each in unknown] == [None] * 7


def test_weights_are_named_without_folder_and_ending():
    assert weights_name("Flux\\dev\\flux1.dev.safetensors") == "flux1.dev"
    assert weights_name("a/b/dreamshaper_8.ckpt") == "dreamshaper_8"
    assert weights_name("stable-diffusion-1.5") == "stable-diffusion-1.5"
    assert weights_name(" ") is None


def test_facts_are_completed_by_others():
    first = GenerationFacts(prompt="a", steps=3)
    second = GenerationFacts(prompt="b", seed=0, steps=9)
    assert first | second == GenerationFacts(prompt="a", seed=0, steps=3)
