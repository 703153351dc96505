import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import reward_models
from imgalign.errors import CheckpointError, InputError, NumericsError
from reward_models.clip import ClipReward, load_towers
from reward_models.contract import HeadConfig, Scale
from reward_models.head import PreferenceHead

PROMPTS = ["a red fox", "a house", "a red fox"]


def make_samples(count=3, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def reward(clip_folder):
    """A reward whose head is not the zero-shot one."""
    towers = load_towers(clip_folder)
    generator = torch.Generator().manual_seed(5)
    head = PreferenceHead(
        towers.width,
        HeadConfig(hidden=4),
        style_width=towers.style_width(style=True),
        generator=generator,
    )
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    scale = Scale(mean=0.5, std=2.0, log_odds=1.5)
    reward = ClipReward(towers, [head], head=HeadConfig(hidden=4), scale=scale, log_tie=(-1.0,))
    return reward.requires_grad_(False)


@pytest.fixture
def saved(reward, tmp_path):
    samples = make_samples(4)
    reward.save(tmp_path / "reward", golden=list(zip([*PROMPTS, "a cat"], samples, strict=True)))
    return tmp_path / "reward"


def edit_contract(folder, **fields):
    path = folder / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_importing_the_package_loads_no_torch():
    code = "import sys, reward_models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_zero_shot_score_is_the_cosine_of_image_and_prompt(clip_folder):
    towers = load_towers(clip_folder)
    samples = make_samples()
    with torch.no_grad():
        image, text, _ = towers.model(towers.prepare(samples), towers.tokenize(PROMPTS))
    score = ClipReward.zero_shot(towers).score(prompts=PROMPTS, samples=samples)
    assert_close(score, torch.nn.functional.cosine_similarity(image, text))


def test_scores_are_standardised_utilities(reward):
    samples = make_samples()
    towers = reward.towers
    features = towers.image_features(towers.prepare(samples), style=True)
    text = towers.encode_tokens(towers.tokenize(PROMPTS))
    utility = reward.utilities(features, text)[:, 0]
    assert_close(reward.score(prompts=PROMPTS, samples=samples), (utility - 0.5) / 2.0)


def test_gradient_in_the_samples_equals_finite_differences(reward):
    samples = make_samples(1).double().requires_grad_()
    reward.score(prompts=["a cat"], samples=samples).sum().backward()
    direction = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        up, down = (
            reward.score(prompts=["a cat"], samples=samples + h * direction) for h in (1e-3, -1e-3)
        )
    slope = float((samples.grad * direction).sum())
    # Float32 inside: the difference of two scores is good to 1e-3 of the slope.
    assert float(up - down) / 2e-3 == pytest.approx(slope, rel=5e-3)
    assert all(parameter.grad is None for parameter in reward.parameters())


def test_scores_do_not_change_under_autocast(reward):
    samples = make_samples()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = reward.score(prompts=PROMPTS, samples=samples)
    assert_close(mixed, reward.score(prompts=PROMPTS, samples=samples))


def test_an_image_with_nan_is_an_error_that_names_it(reward):
    samples = make_samples()
    samples[1, 0, 0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"images \[1\] of 3 hold NaN"):
        reward.score(prompts=PROMPTS, samples=samples)


@pytest.mark.parametrize(
    ("prompts", "samples", "message"),
    [
        (["a fox", ""], make_samples(2), "prompt '': expected text, got none"),
        (["a fox"], make_samples(2), "got 1 prompts and 2 images"),
        (["a fox"], make_samples(1) * 2 - 1, r"expected images in \[0, 1\], got \[-"),
    ],
)
def test_bad_input_is_refused(reward, prompts, samples, message):
    with pytest.raises(InputError, match=message):
        reward.score(prompts=prompts, samples=samples)


def test_a_saved_reward_scores_the_same_after_loading(reward, saved):
    samples = make_samples()
    loaded = reward_models.load(saved)
    assert isinstance(loaded, ClipReward)
    assert_close(
        loaded.score(prompts=PROMPTS, samples=samples),
        reward.score(prompts=PROMPTS, samples=samples),
        rtol=0,
        atol=0,
    )
    assert (loaded.scale, loaded.log_tie) == (reward.scale, reward.log_tie)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_clip_folder_loads_as_the_zero_shot_baseline(clip_folder):
    samples = make_samples()
    baseline = ClipReward.zero_shot(load_towers(clip_folder))
    loaded = reward_models.load(str(clip_folder))
    assert_close(
        loaded.score(prompts=PROMPTS, samples=samples),
        baseline.score(prompts=PROMPTS, samples=samples),
    )


def test_weights_that_changed_are_caught_by_the_golden_scores_too(saved):
    edit_contract(saved, files=None)  # as before hashes were kept
    path = saved / "model.safetensors"
    state = load_file(path)
    proj = state["towers.model.visual.proj"]
    noise = torch.randn(proj.shape, generator=torch.Generator().manual_seed(0))
    state["towers.model.visual.proj"] = proj + 0.05 * proj.std() * noise
    save_file(state, path)
    with pytest.raises(CheckpointError, match=r"golden scores drifted, golden/\d.png scored -?\d"):
        ClipReward.from_pretrained(saved)


def test_a_wrong_activation_is_caught_by_the_golden_scores(saved):
    backbone = json.loads((saved / "contract.json").read_text())["backbone"]
    edit_contract(saved, backbone={**backbone, "quick_gelu": True}, quick_gelu=True)
    with pytest.raises(CheckpointError, match="golden scores drifted"):
        ClipReward.from_pretrained(saved)


def test_a_nan_golden_score_is_a_drift(saved):
    edit_contract(saved, files=None)
    state = load_file(saved / "model.safetensors")
    state["heads.0.cosine"] = torch.tensor(torch.nan)
    save_file(state, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"4 of 4 golden scores drifted.* nan now"):
        ClipReward.from_pretrained(saved)


def test_a_changed_library_is_named_beside_a_drift(saved):
    golden = json.loads((saved / "contract.json").read_text())["golden"]
    moved = [{**each, "score": each["score"] + 0.01} for each in golden]
    edit_contract(saved, golden=moved, libraries={"torch": "0.0.1"})
    with pytest.raises(CheckpointError, match=r"changed since: torch 0.0.1 -> "):
        ClipReward.from_pretrained(saved)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quick_gelu": True}, "quick_gelu is True here and False in the backbone"),
        ({"format": 2}, "written by a newer imgalign"),
        ({"scale": {"std": -1}}, r"scale.std: "),
        ({"flavour": 1}, "flavour: "),
        ({"head": {"hidden": 8}}, r"tensors do not fit the contract, heads.0.bias is \[4\]"),
        ({"backbone": {"embed_dim": 16}}, r"contract.json: backbone.vision_cfg: field required"),
        ({"golden": []}, "no golden images"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(saved, fields, message):
    edit_contract(saved, **fields)
    with pytest.raises(CheckpointError, match=message):
        ClipReward.from_pretrained(saved)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("contract.json", "no contract.json here; found: golden, model"),
        ("model.safetensors", "model.safetensors: missing; copy the whole folder"),
        ("golden/2.png", "golden/2.png: missing; copy the whole folder"),
        ("tokenizer", "tokenizer/tokenizer.json: missing; copy the whole folder"),
    ],
)
def test_a_folder_that_lacks_something_says_what(saved, missing, message):
    path = saved / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=message):
        ClipReward.from_pretrained(saved)


def test_a_folder_from_before_hashes_were_kept_says_what_it_lacks(saved):
    edit_contract(saved, files=None)
    for missing in ("golden/2.png", "model.safetensors", "tokenizer/tokenizer.json"):
        (saved / missing).unlink()
        with pytest.raises(CheckpointError, match=rf"{missing}: (no such file|missing)"):
            ClipReward.from_pretrained(saved)


def test_settings_that_no_tower_can_be_built_from_are_one_line(saved):
    backbone = json.loads((saved / "contract.json").read_text())["backbone"]
    backbone["vision_cfg"]["head_width"] = 1000
    edit_contract(saved, backbone=backbone)
    with pytest.raises(CheckpointError, match="reward: backbone: open_clip cannot build it"):
        ClipReward.from_pretrained(saved)


def test_truncated_weights_are_a_checkpoint_error(saved):
    edit_contract(saved, files=None)
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        ClipReward.from_pretrained(saved)


def test_saving_over_something_else_is_refused(reward, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="holds something else than a reward model"):
        reward.save(tmp_path, golden=[("a cat", make_samples()[0])])
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_saving_again_replaces_the_old_reward(reward, saved):
    reward.save(saved, golden=[("a cat", make_samples()[0])])
    assert sorted(p.name for p in (saved / "golden").iterdir()) == ["0.png"]
    assert [p.name for p in saved.parent.iterdir()] == ["reward"]
    ClipReward.from_pretrained(saved)
