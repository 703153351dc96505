"""Claims: a policy that starts from an adapter is the model with it, compares itself with that and
never with what it has learned since, and keeps both in its checkpoints."""

import shutil

import pytest
import torch
from adapter_runs import make_run
from lora_files import (
    ATTENTION,
    TEXT,
    Matrices,
    diffusers,
    kohya,
    random_matrices,
    write,
    write_peft_folder,
)
from plain_diffusers import drawn_by_diffusers
from policies import diffusion, move_weights
from torch import Tensor
from torch.testing import assert_close

from imgalign.diffusion.generate import ImageGenerator
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.errors import CheckpointError, ConfigError
from imgalign.images import to_image
from imgalign.preferences.records import SamplerSettings
from imgalign.runs.trained import ADAPTER, REFERENCE

PROMPTS, SEEDS = ["a red house", "two blue boat"], [5, 6]
LAYERS = (*ATTENTION, "conv2")
RANKS, ALPHAS = {"to_v": 3, "conv2": 1}, {"to_q": 4.0, "conv2": 0.5}
"""Of the layers that end so; other ranks are 2, other alphas 1."""


@pytest.fixture
def matrices(tiny_pipeline) -> Matrices:
    return random_matrices(tiny_pipeline.unet, LAYERS, ranks=RANKS)


@pytest.fixture
def start(matrices, tmp_path):
    """An adapter whose layers have several ranks and alphas."""
    return write(tmp_path / "start.safetensors", kohya(matrices, alphas=ALPHAS))


def images(policy: DiffusionPolicy) -> Tensor:
    return policy.preview(PROMPTS, seeds=SEEDS)


def images_of_reference(policy: DiffusionPolicy) -> Tensor:
    with policy.using("reference"):
        return images(policy)


@torch.no_grad()
def images_of_merged(folder, matrices: Matrices) -> Tensor:
    """Of the model after alpha / rank * up @ down was added to its weights."""
    policy = diffusion(folder, target_modules=("conv_out",))
    for name, (down, up) in matrices.items():
        alpha = next((ALPHAS[end] for end in ALPHAS if name.endswith(end)), 1.0)
        weight = policy.family.network.get_submodule(name).weight
        weight.add_((alpha / len(down) * up.flatten(1) @ down.flatten(1)).view_as(weight))
    return images(policy)


def test_it_starts_as_the_model_with_the_adapter_and_compares_with_that(
    tiny_pipeline_folder, matrices, start
):
    expected = images_of_merged(tiny_pipeline_folder, matrices)
    assert (images(diffusion(tiny_pipeline_folder)) - expected).abs().max() > 1e-2
    policy = diffusion(tiny_pipeline_folder, adapter=str(start))
    # Another order of the same sums, over a few passes of the network.
    assert_close(images(policy), expected, rtol=0, atol=1e-4)
    move_weights(policy, by=0.2)
    assert (images(policy) - expected).abs().max() > 1e-2
    assert_close(images_of_reference(policy), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft", "run"])
def test_it_starts_from_what_images_can_be_generated_with(
    tiny_pipeline_folder, matrices, tmp_path, layout
):
    path = {
        "kohya": lambda: write(tmp_path / "k.safetensors", kohya(matrices, alphas=ALPHAS)),
        "diffusers": lambda: write(tmp_path / "d.safetensors", diffusers(matrices)),
        "peft": lambda: write_peft_folder(tmp_path / "peft", matrices, lora_alpha=5),
        "run": lambda: make_run(tmp_path / "run", tiny_pipeline_folder, steps=(1, 2)),
    }[layout]()
    generator = ImageGenerator(str(tiny_pipeline_folder), path, device="cpu", dtype="float32")
    settings = SamplerSettings(num_inference_steps=4)
    expected = [made.image for made in generator.generate(PROMPTS, seeds=SEEDS, settings=settings)]
    policy = diffusion(tiny_pipeline_folder, adapter=str(path))
    assert [to_image(image) for image in images(policy)] == expected


def test_what_it_trains_opens_in_plain_diffusers(tiny_pipeline_folder, start, tmp_path):
    policy = diffusion(tiny_pipeline_folder, adapter=str(start))
    move_weights(policy)
    policy.save(tmp_path)
    for folder, expected in (
        (tmp_path, images(policy)),
        (tmp_path / REFERENCE, images_of_reference(policy)),
    ):
        drawn = drawn_by_diffusers(tiny_pipeline_folder, folder, PROMPTS, seeds=SEEDS)
        assert_close(drawn, expected, rtol=0, atol=1e-4)


def test_a_checkpoint_brings_its_reference_whatever_the_policy_started_from(
    tiny_pipeline_folder, start, tmp_path
):
    policy = diffusion(tiny_pipeline_folder, adapter=str(start))
    move_weights(policy)
    policy.save(tmp_path)
    start.unlink()
    trained, reference = images(policy), images_of_reference(policy)
    assert not torch.equal(trained, reference)
    for place in (tmp_path / REFERENCE, tmp_path):
        other = diffusion(tiny_pipeline_folder, adapter=str(place))
        other.load(tmp_path)
        assert torch.equal(images(other), trained)
        assert torch.equal(images_of_reference(other), reference)
        move_weights(other)
        assert torch.equal(images_of_reference(other), reference)
        (tmp_path / "again").mkdir()
        policy.save(tmp_path / "again")
        files = [folder / REFERENCE / ADAPTER for folder in (tmp_path, tmp_path / "again")]
        assert files[0].read_bytes() == files[1].read_bytes()
        shutil.rmtree(tmp_path / "again")


def test_a_checkpoint_without_the_reference_is_refused(tiny_pipeline_folder, start, tmp_path):
    policy = diffusion(tiny_pipeline_folder, adapter=str(start))
    policy.save(tmp_path)
    shutil.rmtree(tmp_path / REFERENCE)
    with pytest.raises(CheckpointError, match="expected reference/, the adapter that the run"):
        policy.load(tmp_path)


def test_without_an_adapter_a_checkpoint_has_no_reference(tiny_pipeline_folder, tmp_path):
    diffusion(tiny_pipeline_folder).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ADAPTER]


def test_settings_that_agree_with_the_adapter_are_taken_and_others_refused(
    tiny_pipeline_folder, tiny_pipeline, tmp_path
):
    own = random_matrices(tiny_pipeline.unet, ATTENTION)
    path = str(write(tmp_path / "own.safetensors", kohya(own)))
    agreeing = {"lora_rank": 2, "lora_alpha": 1, "target_modules": ATTENTION}
    policy = diffusion(tiny_pipeline_folder, adapter=path, **agreeing)
    assert len(policy.trainable_parameters()) == 2 * len(own)
    for changed, said in (
        ({"lora_rank": 4}, r"^policy\.lora_rank: policy\.adapter has 2, got 4; leave it out"),
        ({"lora_alpha": 2}, r"^policy\.lora_alpha: policy\.adapter has 1, got 2; leave it out"),
        ({"target_modules": ("to_q",)}, r"^policy\.target_modules: policy\.adapter has .*to_out"),
        ({"target_modules": (*ATTENTION, "to_k")}, r"target_modules: policy\.adapter lacks .*to_k"),
        ({"target_modules": (*ATTENTION, "to_x")}, r"target_modules: .* no layer called 'to_x'"),
    ):
        with pytest.raises(ConfigError, match=said):
            diffusion(tiny_pipeline_folder, adapter=path, **{**agreeing, **changed})


def test_an_adapter_that_cannot_be_started_from_is_named(
    tiny_pipeline_folder, tiny_pipeline, tmp_path
):
    unet, text = tiny_pipeline.unet, tiny_pipeline.text_encoder
    both = kohya(random_matrices(unet, ATTENTION), random_matrices(text, TEXT))
    strange = {f"{name.replace('lora_unet', 'lora_unet_x')}": each for name, each in both.items()}
    for path, said in (
        (tmp_path / "none", "none: no such folder"),
        (write(tmp_path / "text.safetensors", both), r"layers of text_encoder too.*format merged"),
        (write(tmp_path / "strange.safetensors", strange), "no place in this model"),
    ):
        with pytest.raises(ConfigError, match=rf"^policy\.adapter: .*{said}"):
            diffusion(tiny_pipeline_folder, adapter=str(path))
