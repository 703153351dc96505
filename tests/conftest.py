"""Shared fixtures: real library classes at the smallest size that still has every part."""

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

# Tests compare bit for bit, also with runs in child processes, and the number of threads decides
# in which order floats are added. Before torch is imported: it reads this once.
os.environ["OMP_NUM_THREADS"] = "1"
# Runs keep encoded images there, and not in the folder of whoever runs the tests.
os.environ["IMGALIGN_CACHE"] = tempfile.mkdtemp(prefix="imgalign-tests-")

import pytest
import torch
import typechecker  # noqa: F401  # before all that it checks
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from processes import Servers, command_servers
from transformers import CLIPTextConfig, CLIPTextModel

from imgalign.storybook.tokenizer import build_tokenizer

torch.set_num_threads(1)
# As in a terminal: under nohup this process and its children would ignore a hang-up.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files whose tests take long: at the end no worker waits for another's last one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    browser = {item.path for item in items if item.get_closest_marker("browser")}
    items.sort(key=lambda item: (item.path not in slow, item.path not in browser))


def pytest_unconfigure() -> None:
    """Remove the encoded images."""
    shutil.rmtree(os.environ["IMGALIGN_CACHE"], ignore_errors=True)


TINY_WORDS = ("a", "red", "blue", "green", "house", "tree", "boat", "and", "two", "the")


def build_tiny_pipeline(folder: Path, **scheduler: object) -> StableDiffusionPipeline:
    """Write a pipeline with random weights: images of 16 x 16 pixels, latents of 4 x 8 x 8."""
    tokenizer = build_tokenizer(TINY_WORDS, folder / "words", max_length=12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            sample_size=16,
        )
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=12,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    settings |= {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**settings | scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder / "pipeline")
    return pipeline


@pytest.fixture(scope="session")
def tiny_pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of StableDiffusionPipeline; leave it as it is."""
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_pipeline(folder)
    return folder / "pipeline"


@pytest.fixture
def tiny_pipeline(tiny_pipeline_folder: Path) -> StableDiffusionPipeline:
    """A pipeline of its own for each test, on the CPU."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Start the processes of a run of two without importing anything again."""
    with command_servers(2) as running:
        yield running


@pytest.fixture
def gpu() -> torch.device:
    """The device of tests that are marked `gpu`; without a CUDA device they are skipped.

    IMGALIGN_TEST_DEVICE=cpu runs them on the CPU all the same: their code is tried out, and what
    they claim of GPUs is not.
    """
    device = torch.device(os.environ.get("IMGALIGN_TEST_DEVICE", "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return device


@pytest.fixture
def whole_float32() -> Iterator[None]:
    """Convolutions multiply float32 with all its bits, and not as TF32, which has 10 of 23."""
    before = _use_tf32(False)
    yield
    _use_tf32(before)


def _use_tf32(wanted: bool) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # releases differ in which of two settings is the old one
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = wanted
    return before
