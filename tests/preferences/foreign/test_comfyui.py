"""Literal graphs of ComfyUI, as it ran them and as its editor showed them."""

import json
import tracemalloc
from typing import Any

import pytest

from imgalign.preferences.foreign.comfyui import parse_prompt, parse_workflow
from imgalign.preferences.foreign.generation_facts import GenerationFacts

SIMPLE = """\
{"3": {"inputs": {"seed": 1102676403634909, "steps": 20, "cfg": 8.0, "sampler_name": "dpmpp_2m",
  "scheduler": "karras", "denoise": 1.0, "model": ["10", 0], "positive": ["6", 0],
  "negative": ["7", 0], "latent_image": ["5", 0]}, "class_type": "KSampler",
  "_meta": {"title": "KSampler"}, "is_changed": [NaN]},
 "4": {"inputs": {"ckpt_name": "sd15\\\\dreamshaper_8.safetensors"},
  "class_type": "CheckpointLoaderSimple"},
 "5": {"inputs": {"width": 512, "height": 512, "batch_size": 1}, "class_type": "EmptyLatentImage"},
 "6": {"inputs": {"text": "(cat:1.2) sitting\\non a log", "clip": ["10", 1]},
  "class_type": "CLIPTextEncode"},
 "7": {"inputs": {"text": "bad eyes", "clip": ["10", 1]}, "class_type": "CLIPTextEncode"},
 "8": {"inputs": {"samples": ["3", 0], "vae": ["4", 2]}, "class_type": "VAEDecode"},
 "9": {"inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}, "class_type": "SaveImage"},
 "10": {"inputs": {"lora_name": "log-cats.safetensors", "strength_model": 0.7,
  "strength_clip": 1.0, "model": ["4", 0], "clip": ["4", 1]}, "class_type": "LoraLoader"}}"""

SIMPLE_FACTS = GenerationFacts(
    prompt="(cat:1.2) sitting on a log",
    negative_prompt="bad eyes",
    seed=1102676403634909,
    steps=20,
    guidance_scale=8.0,
    sampler="dpmpp_2m karras",
    model="dreamshaper_8",
    adapter="log-cats:0.7",
)

FLUX = """\
{"1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev.safetensors"}},
 "2": {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": "t5xxl.safetensors"}},
 "4": {"class_type": "CLIPTextEncode", "inputs": {"text": ["20", 0], "clip": ["2", 0]}},
 "5": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["4", 0]}},
 "6": {"class_type": "BasicGuider", "inputs": {"model": ["9", 0], "conditioning": ["5", 0]}},
 "7": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
 "8": {"class_type": "BasicScheduler", "inputs": {"scheduler": "simple", "steps": 20,
  "denoise": 1.0, "model": ["9", 0]}},
 "9": {"class_type": "ModelSamplingFlux", "inputs": {"model": ["1", 0]}},
 "10": {"class_type": "RandomNoise", "inputs": {"noise_seed": ["21", 0]}},
 "11": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 1024, "height": 1024}},
 "12": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["10", 0], "guider": ["6", 0],
  "sampler": ["7", 0], "sigmas": ["8", 0], "latent_image": ["11", 0]}},
 "13": {"class_type": "VAEDecode", "inputs": {"samples": ["12", 0], "vae": ["3", 0]}},
 "14": {"class_type": "SaveImage", "inputs": {"images": ["13", 0]}},
 "20": {"class_type": "StringConcatenate", "inputs": {"string_a": "a fox", "string_b": ["22", 0],
  "delimiter": " "}},
 "21": {"class_type": "PrimitiveInt", "inputs": {"value": 123}},
 "22": {"class_type": "PrimitiveString", "inputs": {"value": "in the snow"}}}"""

WORKFLOW = """\
{"last_node_id": 10, "nodes": [
 {"id": 3, "type": "KSampler", "mode": 0, "inputs": [
   {"name": "model", "type": "MODEL", "link": 11}, {"name": "positive", "type": "COND", "link": 4},
   {"name": "negative", "type": "COND", "link": 6},
   {"name": "latent_image", "type": "LATENT", "link": 2}],
  "widgets_values": [5, "randomize", 20, 8, "euler", "normal", 1]},
 {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["v1-5.ckpt"]},
 {"id": 5, "type": "EmptyLatentImage", "widgets_values": [512, 512, 1]},
 {"id": 6, "type": "CLIPTextEncode", "inputs": [{"name": "clip", "type": "CLIP", "link": 3}],
  "widgets_values": ["a glass bottle"]},
 {"id": 7, "type": "CLIPTextEncode", "widgets_values": ["text, watermark"]},
 {"id": 8, "type": "VAEDecode", "inputs": [{"name": "samples", "type": "LATENT", "link": 7}]},
 {"id": 9, "type": "SaveImage", "inputs": [{"name": "images", "type": "IMAGE", "link": 9}],
  "widgets_values": ["ComfyUI"]},
 {"id": 10, "type": "LoraLoader", "mode": 4, "inputs": [
   {"name": "model", "type": "MODEL", "link": 1}], "widgets_values": ["off.safetensors", 1, 1]},
 {"id": 11, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": 12}]}],
 "links": [[1, 4, 0, 10, 0, "MODEL"], [2, 5, 0, 3, 3, "LATENT"], [3, 4, 1, 6, 0, "CLIP"],
  [4, 11, 0, 3, 1, "COND"], {"id": 6, "origin_id": 7, "origin_slot": 0, "target_id": 3},
  [7, 3, 0, 8, 0, "LATENT"], [9, 8, 0, 9, 0, "IMAGE"], [11, 10, 0, 3, 0, "MODEL"],
  [12, 6, 0, 11, 0, "COND"]]}"""


def test_the_text_behind_the_sampler_of_the_saved_image_is_its_prompt():
    assert parse_prompt(SIMPLE) == SIMPLE_FACTS


def test_a_sampler_in_parts_is_put_together():
    assert parse_prompt(FLUX) == GenerationFacts(
        prompt="a fox in the snow", seed=123, steps=20, sampler="euler simple", model="flux1-dev"
    )


def test_the_graph_of_the_editor_is_read_where_there_is_no_other():
    assert parse_workflow(WORKFLOW) == GenerationFacts(
        prompt="a glass bottle",
        negative_prompt="text, watermark",
        seed=5,
        steps=20,
        guidance_scale=8.0,
        sampler="euler",
        model="v1-5",
    )


def changed(**nodes: Any) -> str:
    """`SIMPLE` with other inputs of some nodes, or other nodes."""
    graph = json.loads(SIMPLE)
    for key, node in nodes.items():
        name = key.removeprefix("n")
        if "class_type" in node:
            graph[name] = node
        else:
            graph[name]["inputs"] |= node
    return json.dumps(graph)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def test_the_first_of_several_passes_counts():
    text = changed(
        n8={"samples": ["31", 0]},
        n31=node(
            "KSampler",
            seed=9,
            steps=4,
            positive=["32", 0],
            latent_image=["33", 0],
        ),
        n32=node("CLIPTextEncode", text="sharper", clip=["4", 1]),
        n33=node("LatentUpscale", samples=["3", 0]),
    )
    assert parse_prompt(text) == SIMPLE_FACTS


def test_a_sampler_that_made_the_image_of_a_controlnet_does_not_count():
    control = node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], image=["42", 0])
    sampler = json.loads(SIMPLE)["3"]["inputs"] | {"seed": 77, "positive": ["44", 0]}
    text = changed(
        n3={"positive": ["41", 0], "negative": ["41", 1]},
        n41=control,
        n42=node("VAEDecode", samples=["43", 0]),
        n43=node("KSampler", **sampler),
        n44=node("CLIPTextEncode", text="a line drawing"),
    )
    assert parse_prompt(text) == SIMPLE_FACTS


@pytest.mark.parametrize(
    ("encoder", "prompt"),
    [
        (node("CLIPTextEncodeSDXL", text_g="a cat", text_l="a cat", width=1024), "a cat"),
        (node("CLIPTextEncodeFlux", clip_l="cat", t5xxl="a long cat"), "a long cat, cat"),
        (
            node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["7", 0]),
            "(cat:1.2) sitting on a log, bad eyes",
        ),
        (node("Efficient Loader", positive="a cat", negative="a dog", ckpt_name="x"), "a cat"),
        (node("ImpactWildcardEncode", wildcard_text="__pet__", populated_text="a cat"), "a cat"),
    ],
)
def test_other_nodes_that_encode_text_are_read_by_the_names_of_their_inputs(
    encoder: dict[str, Any], prompt: str
):
    found = parse_prompt(changed(n3={"positive": ["50", 0]}, n50=encoder))
    assert found.prompt == prompt


def test_conditioning_that_is_zeroed_out_is_no_negative_prompt():
    text = changed(
        n3={"negative": ["51", 0]}, n51=node("ConditioningZeroOut", conditioning=["6", 0])
    )
    assert parse_prompt(text).negative_prompt is None


def test_without_a_node_that_saves_any_sampler_counts():
    assert parse_prompt(changed(n9=node("SomebodysSaver", images=["8", 0]))) == SIMPLE_FACTS


def test_seeds_of_64_bits_are_kept_in_63():
    assert parse_prompt(changed(n3={"seed": 2**64 - 1})).seed == 2**63 - 1


@pytest.mark.parametrize(
    "changes",
    [
        {"n6": {"text": ["6", 0]}},
        {"n6": {"text": ["6", 0], "conditioning": ["6", 0], "other": ["3", 0]}},
        {"n4": {"ckpt_name": ["4", 0], "model": ["10", 0]}},
        {"n3": {"positive": ["3", 0], "negative": "x", "seed": ["3", 0], "model": [3, None]}},
        {"n5": {"samples": ["3", 0], "pixels": ["8", 0]}},
    ],
)
def test_loops_and_links_to_nowhere_end(changes: dict[str, Any]):
    parse_prompt(changed(**changes))


def test_a_graph_made_to_be_walked_for_ever_is_given_up():
    combine = {f"c{k}": [str(k), 0] for k in range(100)}
    graph = {str(k): node("ConditioningCombine", **combine) for k in range(100)}
    graph["s"] = node("KSampler", positive=["0", 0], seed=4, latent_image=["x", 0])
    assert parse_prompt(json.dumps(graph)) == GenerationFacts(seed=4)


def test_a_text_made_to_double_at_each_node_is_no_prompt_and_takes_little_memory():
    graph = {str(k): node("Concat", a=[str(k + 1), 0], b=[str(k + 1), 0]) for k in range(40)}
    graph["40"] = node("PrimitiveString", value="x" * 60_000)
    graph["e"] = node("CLIPTextEncode", text=["0", 0])
    graph["s"] = node("KSampler", positive=["e", 0], seed=4, latent_image=["x", 0])
    tracemalloc.start()
    try:
        assert parse_prompt(json.dumps(graph)) == GenerationFacts(seed=4)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 5000,
        '{"3": null, "4": {"inputs": []}, "5": {"inputs": {}}}',
        '{"nodes": [null, {"type": 3}, {"type": "KSampler", "inputs": 5}], "links": [null, [1]]}',
        '{"nodes": {}, "links": []}',
        '{"nodes": [{"id": {}, "type": "KSampler", "widgets_values": {"seed": []}}], "links": []}',
    ],
)
def test_what_is_no_graph_is_unknown(text: str):
    assert parse_prompt(text) == GenerationFacts()
    assert parse_workflow(text) == GenerationFacts()
