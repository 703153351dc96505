"""A reward or CLIP folder from anywhere runs no code, asks no network and is refused in a line."""

import dataclasses
import json
import os
import shutil
import socket
from pathlib import Path

import open_clip.model
import pytest
import torch
from safetensors.torch import save, save_file

import reward_models
from imgalign.errors import CheckpointError, ImgalignError
from reward_models.architecture import Architecture, TextTower, VisionTower, validated
from reward_models.clip import ClipReward, load_towers
from reward_models.clip_models import STORYBOOK

HUGE = 10**9


@pytest.fixture(scope="module")
def template(tmp_path_factory, clip_folder):
    """A reward folder with two golden images."""
    folder = tmp_path_factory.mktemp("reward") / "reward"
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ClipReward.zero_shot(load_towers(clip_folder)).save(
        folder, golden=[("a red fox", images[0]), ("a house", images[1])]
    )
    return folder


@pytest.fixture
def reward(template, tmp_path):
    return shutil.copytree(template, tmp_path / "reward")


@pytest.fixture
def clip(clip_folder, tmp_path):
    return shutil.copytree(clip_folder, tmp_path / "clip")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every attempt to reach anything is an error, and is counted."""
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert not asked


def edit(path: Path, place: str, value: object) -> None:
    """Set `place`, such as "backbone.text_cfg.width", in a JSON file."""
    content = json.loads(path.read_text())
    *sections, name = place.split(".")
    inner = content
    for section in sections:
        inner = inner[int(section) if section.isdigit() else section]
    inner[name] = value
    path.write_text(json.dumps(content))


def refusal(folder: Path) -> str:
    with pytest.raises(ImgalignError) as caught:
        reward_models.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def plant_code(folder: Path) -> Path:
    """A tokenizer of its own code, which leaves a file when it is run."""
    trace = folder / "was_run"
    (folder / "tokenization_evil.py").write_text(
        f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
        "from transformers import CLIPTokenizer\n"
        "class EvilTokenizer(CLIPTokenizer):\n    pass\n"
    )
    edit(
        folder / "tokenizer_config.json",
        "auto_map",
        {"AutoTokenizer": ["tokenization_evil.EvilTokenizer", None]},
    )
    edit(folder / "tokenizer_config.json", "tokenizer_class", "EvilTokenizer")
    return trace


def test_the_code_of_a_reward_folder_is_never_run(reward):
    trace = plant_code(reward / "tokenizer")
    edit(
        reward / "contract.json",
        "backbone.text_cfg.tokenizer_kwargs",
        {"trust_remote_code": True},
    )
    assert "trust_remote_code" in refusal(reward)
    assert not trace.exists()


@pytest.mark.parametrize("arguments", [{"trust_remote_code": True}, None])
def test_the_code_of_a_clip_folder_is_never_run(clip, arguments):
    trace = plant_code(clip)
    edit(clip / "open_clip_config.json", "model_cfg.text_cfg.tokenizer_kwargs", arguments)
    assert ("auto_map" if arguments is None else "trust_remote_code") in refusal(clip)
    assert not trace.exists()


def test_a_tokenizer_with_code_of_its_own_is_refused_by_name(reward):
    trace = plant_code(reward / "tokenizer")
    edit(reward / "contract.json", "files", None)
    assert "auto_map" in refusal(reward)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["hf-hub:someone/model", "hf_hub:someone/model", "local-dir:/tmp", "nonsense"]
)
def test_a_vision_tower_is_fetched_from_nowhere(reward, name):
    edit(reward / "contract.json", "backbone.vision_cfg.timm_model_name", name)
    assert "timm" in refusal(reward) or "backbone" in refusal(reward)


def test_a_text_tower_is_fetched_from_nowhere(clip):
    edit(clip / "open_clip_config.json", "model_cfg.text_cfg.hf_model_name", "someone/model")
    assert "hf_model_name" in refusal(clip)


@pytest.mark.parametrize(
    "image", ["/dev/zero", "../../secret.png", "golden/../contract.json", "golden/0.eps", "golden"]
)
def test_a_golden_image_is_a_file_of_the_folder(reward, image):
    edit(reward / "contract.json", "golden.0.image", image)
    assert "golden.0.image" in refusal(reward)


@pytest.mark.parametrize("kind", ["pipe", "device", "eps"])
def test_a_golden_image_is_a_plain_image_file(reward, kind):
    path = reward / "golden" / "0.png"
    path.unlink()
    edit(reward / "contract.json", "files", None)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "golden/0.png: expected a" in refusal(reward)


SIZES = [
    "backbone.embed_dim",
    "backbone.vision_cfg.image_size",
    "backbone.vision_cfg.width",
    "backbone.vision_cfg.layers",
    "backbone.vision_cfg.head_width",
    "backbone.vision_cfg.patch_size",
    "backbone.vision_cfg.mlp_ratio",
    "backbone.text_cfg.context_length",
    "backbone.text_cfg.vocab_size",
    "backbone.text_cfg.width",
    "backbone.text_cfg.heads",
    "backbone.text_cfg.layers",
    "backbone.text_cfg.mlp_ratio",
    "preprocess.image_size",
    "text.context_length",
    "head.hidden",
]


@pytest.mark.parametrize("size", [0, -1, 10**6, HUGE, 10**30, "NaN", None, [], {}])
def test_no_size_of_a_contract_does_more_than_a_line(reward, template, size):
    for place in SIZES:
        shutil.copy(template / "contract.json", reward)
        value = float("nan") if size == "NaN" else size
        edit(reward / "contract.json", place, [value, value] if place.startswith("pre") else value)
        if size != 0 or place != "head.hidden":
            assert "contract.json" in refusal(reward) or "backbone" in refusal(reward), place


def test_sizes_within_bounds_that_the_weights_do_not_have_are_refused_before_they_are_made(reward):
    """Each alone is a size that some CLIP has; together they would take 200 GB."""
    for place, value in {
        "vision_cfg.width": 8192,
        "vision_cfg.layers": 64,
        "text_cfg.width": 8192,
        "text_cfg.layers": 64,
    }.items():
        edit(reward / "contract.json", f"backbone.{place}", value)
    assert "model.safetensors" in refusal(reward)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_of_a_contract_is_without_end_or_none_at_all(reward, template, value):
    for place in ("scale.mean", "scale.std", "golden.0.score", "preprocess.fill"):
        shutil.copy(template / "contract.json", reward)
        edit(reward / "contract.json", place, "PLACE")
        text = (reward / "contract.json").read_text().replace('"PLACE"', value)
        (reward / "contract.json").write_text(text)
        assert place in refusal(reward)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"format": ' * 50_000, "1" * 5000, '"\\ud800"', "{}" + " " * 2**21, "\0", "5"],
)
@pytest.mark.parametrize("name", ["contract.json", "tokenizer/tokenizer_config.json"])
def test_json_that_is_deep_or_huge_is_one_line(reward, name, text):
    edit(reward / "contract.json", "files", None)
    (reward / name).write_text(text)
    assert name in refusal(reward)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{}" + " " * 2**21])
def test_json_of_a_clip_folder_that_is_deep_or_huge_is_one_line(clip, text):
    (clip / "open_clip_config.json").write_text(text)
    assert "open_clip_config.json" in refusal(clip)


def test_a_tokenizer_that_is_nonsense_is_one_line(reward, template):
    edit(reward / "contract.json", "files", None)
    for content in ("", "{}", "[" * 100_000, '{"version": "1.0", "model": {"type": "BPE"}}'):
        (reward / "tokenizer" / "tokenizer.json").write_text(content)
        assert "tokenizer.json" in refusal(reward)


def test_tokens_outside_the_vocabulary_of_the_towers_are_refused(reward):
    edit(reward / "contract.json", "files", None)
    path = reward / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["fox</w>"] = 10**6
    path.write_text(json.dumps(content))
    assert "tokenizer: gives token 1000000" in refusal(reward)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(VisionTower, open_clip.model.CLIPVisionCfg), (TextTower, open_clip.model.CLIPTextCfg)],
)
def test_what_a_configuration_leaves_out_is_as_open_clip_has_it(ours, theirs):
    defaults = {field.name: field.default for field in dataclasses.fields(theirs)}
    for name, value in ours().model_dump().items():
        assert value == defaults[name], name


def test_the_plain_clips_that_open_clip_lists_are_all_allowed():
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if "multimodal_cfg" in config or "hf_model_name" in config["text_cfg"]:
            continue
        assert validated(Architecture, config, name).embed_dim == config["embed_dim"]


def test_the_shipped_clip_loads_and_a_bare_number_as_configuration_does_not(clip):
    assert load_towers(STORYBOOK).width == 128
    edit(clip / "open_clip_config.json", "model_cfg", 5)
    assert "model_cfg" in refusal(clip)


@pytest.mark.parametrize("name", ["model.safetensors", "golden/0.png", "tokenizer/tokenizer.json"])
def test_every_flipped_bit_of_a_reward_is_seen(reward, name):
    path = reward / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 1  # a low bit of a weight moves no golden score
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{path.name}: .*SHA-256"):
        reward_models.load(reward)


@pytest.mark.parametrize("name", ["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"])
def test_a_file_of_the_tokenizer_without_a_hash_in_the_contract_is_refused(reward, name):
    files = json.loads((reward / "contract.json").read_text())["files"]
    del files[name]
    edit(reward / "contract.json", "files", files)
    assert f"lists no {name}, so it cannot be verified" in refusal(reward)


def test_a_reward_from_before_hashes_were_kept_still_loads(reward):
    content = json.loads((reward / "contract.json").read_text())
    assert set(content.pop("files")) >= {"model.safetensors", "golden/0.png", "golden/1.png"}
    (reward / "contract.json").write_text(json.dumps(content))
    reward_models.load(reward)


@pytest.mark.parametrize("name", ["/etc/passwd", "../model.safetensors", "golden/../x"])
def test_hashes_are_of_files_of_the_folder(reward, name):
    edit(reward / "contract.json", "files", {name: "0" * 64})
    assert "files" in refusal(reward)


def test_weights_of_a_clip_folder_that_are_nonsense_are_one_line(clip):
    path = clip / "open_clip_model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:50], whole[:-9], save({}) + bytes(len(whole))):
        path.write_bytes(content)
        assert "open_clip_model.safetensors" in refusal(clip)
    save_file({"nothing": torch.zeros(len(whole))}, path)
    assert "open_clip cannot load it" in refusal(clip)
