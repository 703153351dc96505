import json
import shutil

import open_clip
import pytest
import torch
from torch.testing import assert_close

from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.images import as_tensor, decode_image, png, to_image
from reward_models.clip_models import load_towers, resolve
from reward_models.towers import channel_statistics


def test_features_equal_those_of_open_clip(clip_folder):
    towers = load_towers(clip_folder)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{clip_folder}")
    prompts = ["a red fox", "a house"]
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    file = png(to_image(image))
    with torch.no_grad():
        prepared = preprocess(_pil(file))[None]
        expected_image, expected_text, _ = model.eval()(prepared, tokenize(prompts))
        ours = towers.encode_prepared(towers.prepare(as_tensor(decode_image(file))[None]))
        assert_close(ours, expected_image)
        assert_close(towers.encode_tokens(towers.tokenize(prompts)), expected_text)


VISIONS = {
    "transformer": None,
    "residual": {"image_size": 32, "layers": [1, 1, 1, 2], "width": 8, "head_width": 16},
}


@pytest.mark.parametrize("vision", VISIONS.values(), ids=VISIONS.keys())
def test_style_is_how_the_first_stage_features_wherever_it_stands(make_clip, tmp_path, vision):
    towers = load_towers(make_clip(tmp_path / "clip", **({"vision": vision} if vision else {})))
    images = torch.rand(2, 3, *towers.preprocess.image_size)
    seen = []
    tower = towers.model.visual
    first = tower.layer1 if vision else tower.transformer.resblocks[0]
    with first.register_forward_hook(lambda module, given, result: seen.append(result)):
        features = towers.image_features(images, style=True)
    stage = seen[-1].flatten(2) if vision else seen[-1][:, 1:].transpose(1, 2)
    expected = torch.cat([stage.mean(2), stage.std(2, correction=0)], dim=1)
    plain = towers.image_features(images, style=False)
    assert_close(features[:, : towers.width], plain)
    assert_close(plain, towers.encode_prepared(images))
    expected = expected / expected.norm(dim=1, keepdim=True)
    assert_close(features[:, towers.width :], expected, atol=2e-4, rtol=1e-4)
    assert towers.style_width(style=True) == expected.shape[1] == features.shape[1] - towers.width
    assert towers.style_width(style=False) == 0


def test_a_channel_that_is_the_same_everywhere_has_a_gradient():
    stage = torch.rand(2, 3, 4, 4)
    stage[:, 0] = 0.5
    stage.requires_grad_()
    channel_statistics(stage)[:, 0].sum().backward()
    assert stage.grad is not None
    assert stage.grad.isfinite().all()


def _pil(png):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(png))


def test_an_empty_prompt_is_an_error(clip_folder):
    with pytest.raises(InputError, match=r"prompt ' ': expected text, got none"):
        load_towers(clip_folder).tokenize(["a fox", " "])


def test_a_prompt_beyond_the_context_warns_once_and_names_what_is_lost(clip_folder):
    towers = load_towers(clip_folder)
    long = "a red fox a red house a blue tree"  # 9 tokens, 6 fit between the end tokens
    with pytest.warns(UserWarning, match="1 of 2 prompts .* 8 tokens .* 'a blue tree' is ignored"):
        cut = towers.tokenize(["a fox", long])
    again = towers.tokenize([long])  # a second warning would be an error
    assert_close(cut[1:], again)
    assert_close(again, towers.tokenize(["a red fox a red house"]))


def test_a_prompt_that_just_fits_does_not_warn(clip_folder):
    assert load_towers(clip_folder).beyond_context("a red fox a red house") == ""


def test_unfreezing_n_blocks_trains_those_and_what_follows(clip_folder):
    towers = load_towers(clip_folder)
    towers.freeze(image_blocks=1, text_blocks=2)
    trainable = {name for name, p in towers.named_parameters() if p.requires_grad}
    first = {".".join(name.split(".")[:5]) for name in trainable}
    assert first == {
        "model.visual.transformer.resblocks.1",
        "model.visual.ln_post.weight",
        "model.visual.ln_post.bias",
        "model.visual.proj",
        "model.transformer.resblocks.0.ln_1",
        "model.transformer.resblocks.0.ln_2",
        "model.transformer.resblocks.0.attn",
        "model.transformer.resblocks.0.mlp",
        "model.transformer.resblocks.1.ln_1",
        "model.transformer.resblocks.1.ln_2",
        "model.transformer.resblocks.1.attn",
        "model.transformer.resblocks.1.mlp",
        "model.ln_final.weight",
        "model.ln_final.bias",
        "model.text_projection",
    }


def test_a_residual_network_unfreezes_by_blocks_too(make_clip, tmp_path):
    vision = {"image_size": 32, "layers": [1, 1, 1, 2], "width": 8, "head_width": 16}
    towers = load_towers(make_clip(tmp_path / "clip", vision=vision))
    towers.freeze(image_blocks=1)
    trainable = {name for name, p in towers.named_parameters() if p.requires_grad}
    first = {".".join(name.split(".")[:4]) for name in trainable}
    assert first == {"model.visual.layer4.1", "model.visual.attnpool.positional_embedding"} | {
        f"model.visual.attnpool.{part}_proj" for part in "qkvc"
    }
    statistics = {k: v.clone() for k, v in towers.state_dict().items() if "running" in k}
    towers.train().encode_prepared(torch.rand(2, 3, 32, 32))
    for name, value in statistics.items():
        assert_close(towers.state_dict()[name], value)


def test_unfreezing_more_blocks_than_there_are_names_the_option(clip_folder):
    with pytest.raises(ConfigError, match=r"unfreeze_text_blocks: .* the tower's 2, got 3"):
        load_towers(clip_folder).freeze(text_blocks=3)


def test_a_name_that_is_nothing_says_what_is_expected(tmp_path):
    with pytest.raises(InputError, match=r"expected a folder with open_clip_config.json"):
        load_towers(tmp_path / "absent")
    with pytest.raises(InputError, match="expected one of the tags openai, "):
        load_towers("ViT-B-32:nonsense")


def test_weights_of_another_model_are_a_checkpoint_error(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 24
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="open_clip cannot load it"):
        load_towers(folder)


def test_a_folder_without_weights_is_a_checkpoint_error(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"no weights here; expected open_clip_model.safetensors, found: "
    ):
        load_towers(folder)


def test_the_activation_follows_the_tag_and_not_the_architecture():
    assert open_clip.get_model_config("ViT-B-32").get("quick_gelu", False) is False
    assert resolve("ViT-B-32:openai") == ("ViT-B-32", "openai", True)
    assert resolve("ViT-B-32:laion2b_s34b_b79k") == ("ViT-B-32", "laion2b_s34b_b79k", False)
