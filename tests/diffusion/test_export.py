"""Claims: what is exported draws in the library it is for what it draws here, and nothing that was
in the folder before is lost."""

import json
import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_runs import ALPHA, ATTENTION, RANK, WITH_CONVOLUTIONS, make_full_run, make_run
from diffusers import StableDiffusionPipeline
from lora_files import TEXT, kohya, random_matrices, write
from lora_loaders import comfyui_patches, original_names
from peft import PeftModel
from safetensors.torch import load_file

from imgalign.diffusion.export import export_weights
from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import CheckpointError, InputError
from imgalign.preferences.records import SamplerSettings
from imgalign.runs.exporting import Export, name_of

PROMPTS, SEEDS = ["a red house", "two blue boat"], [5, 6]
CARD = "What it is.\n"


def card(made: Export) -> str:
    return CARD


@pytest.fixture(params=["with convolutions", "attention alone"])
def run(request, tmp_path, tiny_pipeline_folder) -> Path:
    targets = WITH_CONVOLUTIONS if request.param == "with convolutions" else ATTENTION
    return make_run(tmp_path / "first", tiny_pipeline_folder, targets=targets)


@pytest.fixture
def one_run(tmp_path, tiny_pipeline_folder) -> Path:
    return make_run(tmp_path / "first", tiny_pipeline_folder)


@pytest.fixture
def drawn_here(tiny_pipeline_folder):
    """What imgalign draws."""

    def pixels(adapter: Path | None, model: Path = tiny_pipeline_folder) -> np.ndarray:
        generator = ImageGenerator(str(model), adapter, device="cpu", dtype="float32")
        settings = SamplerSettings(num_inference_steps=3)
        images = generator.generate(PROMPTS, seeds=SEEDS, settings=settings)
        return np.stack([np.asarray(each.image) for each in images])

    return pixels


@pytest.fixture
def plain(tiny_pipeline_folder):
    """A pipeline of diffusers that imgalign has no part in."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by(pipeline: StableDiffusionPipeline) -> np.ndarray:
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    made = pipeline(PROMPTS, generator=generators, num_inference_steps=3, guidance_scale=1.0)
    return np.stack([np.asarray(image) for image in made.images])


def largest_difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def load_lora(pipeline: StableDiffusionPipeline, folder: Path, **settings: str) -> None:
    with warnings.catch_warnings():
        # It reads names in mixed files too short, says so, and adapts the right layers.
        warnings.filterwarnings("ignore", "While injecting the PEFT adapters")
        pipeline.load_lora_weights(folder, **settings)


def test_a_diffusers_folder_is_the_checkpoints_file_and_draws_the_same_in_diffusers(
    run, drawn_here, plain
):
    made = export_weights(run, "diffusers", card=card)
    expected = drawn_here(run)
    load_lora(plain, made.folder)
    assert np.array_equal(drawn_by(plain), expected)
    assert np.array_equal(drawn_here(made.folder), expected)
    assert largest_difference(drawn_here(None), expected) > 9
    name = "pytorch_lora_weights.safetensors"
    assert (made.folder / name).read_bytes() == (run / "step-000001" / name).read_bytes()


def test_a_peft_folder_draws_the_same_in_peft(run, drawn_here, plain):
    made = export_weights(run, "peft", card=card)
    expected = drawn_here(run)
    plain.unet = PeftModel.from_pretrained(plain.unet, made.folder)
    assert np.array_equal(drawn_by(plain), expected)
    assert np.array_equal(drawn_here(made.folder), expected)


def test_a_kohya_file_draws_the_same_in_diffusers(run, drawn_here, plain):
    made = export_weights(run, "kohya", card=card)
    expected = drawn_here(run)
    load_lora(plain, made.folder, weight_name=made.weights)
    assert np.array_equal(drawn_by(plain), expected)
    assert np.array_equal(drawn_here(made.folder / made.weights), expected)
    alphas = {
        float(each)
        for name, each in load_file(made.folder / made.weights).items()
        if name.endswith(".alpha")
    }
    assert alphas == {float(ALPHA)} != {float(RANK)}


@torch.no_grad()
def test_what_comfyui_adds_to_the_weights_by_its_rules_draws_the_same(run, drawn_here, plain):
    made = export_weights(run, "kohya", card=card)
    tensors = load_file(made.folder / made.weights)
    patches, left = comfyui_patches(tensors, plain.unet.config)
    assert left == set()
    layers = {place: name for name, place in original_names(plain.unet.config).items()}
    for place, (down, up, scale) in patches.items():
        weight = plain.unet.get_submodule(layers[place]).weight
        weight += scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    # Rounded once in the weight, and not in each layer's output.
    assert largest_difference(drawn_by(plain), drawn_here(run)) <= 1


def test_a_merged_model_draws_the_same_without_an_adapter_to_one_level_of_256(run, drawn_here):
    made = export_weights(run, "merged", card=card)
    merged = StableDiffusionPipeline.from_pretrained(made.folder)
    merged.set_progress_bar_config(disable=True)
    assert not hasattr(merged.unet, "peft_config")
    expected = drawn_here(run)
    assert largest_difference(drawn_by(merged), expected) <= 1
    assert largest_difference(drawn_here(None, made.folder), expected) <= 1
    assert {path.suffix for path in made.folder.rglob("*") if path.is_file()} <= {
        *(".json", ".safetensors", ".md", ".txt")
    }


def test_a_merged_model_does_not_say_in_which_folder_its_base_was(one_run, tiny_pipeline_folder):
    made = export_weights(one_run, "merged", card=card)
    for path in made.folder.rglob("*.json"):
        assert str(tiny_pipeline_folder.parent) not in path.read_text(), path.name
    assert (made.folder / "tokenizer" / "vocab.json").is_file(), "which transformers 4 reads"


def test_whoever_may_read_the_settings_of_a_merged_model_may_read_its_weights(one_run):
    made = export_weights(one_run, "merged", card=card)
    files = [path for path in made.folder.rglob("*") if path.is_file()]
    assert len({path.stat().st_mode for path in files}) == 1


@pytest.mark.parametrize("layout", ["diffusers", "peft", "kohya", "merged"])
def test_half_precision_draws_nearly_the_same(one_run, drawn_here, layout):
    made = export_weights(one_run, layout, card=card, dtype="float16")
    dtypes = {
        each.dtype
        for path in made.folder.rglob("*.safetensors")
        for name, each in load_file(path).items()
        if not name.endswith((".alpha", "position_ids"))
    }
    assert dtypes == {torch.float16}
    arguments = (None, made.folder) if layout == "merged" else (made.folder,)
    difference = drawn_here(*arguments).astype(int) - drawn_here(one_run).astype(int)
    assert np.abs(difference).mean() < 1


def test_a_kohya_file_from_elsewhere_with_a_text_encoder_goes_into_other_layouts(
    tiny_pipeline, tiny_pipeline_folder, drawn_here, plain, tmp_path
):
    unet = random_matrices(tiny_pipeline.unet, ("to_q", "conv1"), ranks={"to_q": 4})
    text = random_matrices(tiny_pipeline.text_encoder, TEXT)
    layers = kohya(unet, text, alphas={"to_q": 0.5, "v_proj": 3.0})
    file = write(tmp_path / "styles" / "my style.safetensors", layers)
    expected = drawn_here(file)
    model = str(tiny_pipeline_folder)
    again = export_weights(file, "kohya", card=card, model=model)
    assert again.folder == file.parent / "export" / "my-style-kohya"
    assert np.array_equal(drawn_here(again.folder), expected)
    made = export_weights(file, "diffusers", card=card, model=model)
    assert np.array_equal(drawn_here(made.folder), expected)
    load_lora(plain, made.folder)
    assert np.array_equal(drawn_by(plain), expected)
    merged = export_weights(file, "merged", card=card, model=model)
    assert largest_difference(drawn_here(None, merged.folder), expected) <= 1
    with pytest.raises(InputError, match="export peft: the adapter has layers of text_encoder too"):
        export_weights(file, "peft", card=card, model=model)
    assert not (file.parent / "export" / "my-style-peft").exists()


def test_of_a_run_with_several_checkpoints_the_best_is_exported_and_named(
    tiny_pipeline_folder, drawn_here, tmp_path
):
    run = make_run(tmp_path / "a", tiny_pipeline_folder, steps=(1, 2, 3), best={2: 0.61})
    made = export_weights(run, "kohya", card=card)
    assert made.source == run / "step-000002"
    assert made.folder == run / "export" / "a-step-000002-kohya"
    assert made.lines() == [
        f"{run / 'step-000002'}: the best of 3 checkpoints (held-out reward 0.61)",
        f"{made.folder / 'a-step-000002.safetensors'}: {len(made.layers)} layers of rank 3",
    ]
    assert np.array_equal(drawn_here(made.folder), drawn_here(run / "step-000002"))
    (run / "best.json").unlink()
    newest = export_weights(run, "kohya", card=card)
    assert newest.source == run / "step-000003"
    assert "none is marked best" in newest.lines()[0]
    named = export_weights(run / "step-000001", "kohya", card=card)
    assert named.lines()[0] == str(run / "step-000001")


def test_a_checkpoint_keeps_its_name_however_it_is_reached(one_run, monkeypatch):
    expected = "first-step-000001"
    checkpoint = one_run / "step-000001"
    assert name_of(checkpoint) == expected
    assert name_of(one_run / ".." / "first" / "step-000001") == expected
    monkeypatch.chdir(one_run)
    assert name_of(Path("step-000001")) == expected
    monkeypatch.chdir(checkpoint)
    assert name_of(Path(".")) == expected


def test_the_folder_has_the_card_and_a_record_of_every_file(one_run):
    made = export_weights(one_run, "peft", card=card)
    record = json.loads((made.folder / "export.json").read_text())
    files = {path.name for path in made.folder.iterdir()} - {"export.json"}
    assert record["files"].keys() == files
    assert files == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert (made.folder / "README.md").read_text() == CARD
    assert (record["format"], record["adapter"]) == ("peft", "first-step-000001")


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_a_network_alone_is_exported_silently(
    tmp_path, tiny_pipeline_folder, caplog, monkeypatch, dtype
):
    run = make_full_run(tmp_path / "full", tiny_pipeline_folder)
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    caplog.clear()
    export_weights(run, "diffusers", card=card, dtype=dtype)
    assert caplog.text == ""


def test_an_export_is_repeated_byte_for_byte_and_replaced_by_another_format(one_run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty one may be there
    export_weights(one_run, "kohya", card=card, out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    export_weights(one_run, "kohya", card=card, out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_weights(one_run, "diffusers", card=card, out=out)
    assert {path.name for path in out.iterdir()} == {
        *("README.md", "export.json", "pytorch_lora_weights.safetensors")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"first", "out"}


def test_nothing_that_an_export_did_not_write_is_lost(one_run, tmp_path):
    out = tmp_path / "out"

    def refusal() -> str:
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(InputError) as caught:
            export_weights(one_run, "kohya", card=card, out=out)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        return str(caught.value)

    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "did not make" in refusal()
    shutil.rmtree(out)
    export_weights(one_run, "kohya", card=card, out=out)
    (out / "README.md").write_text("license: mine")
    assert "README.md: was changed after the export" in refusal()
    (out / "README.md").write_text(CARD)
    (out / "preview.png").write_bytes(b"png")
    assert "preview.png: came after the export" in refusal()
    (out / "preview.png").unlink()
    export_weights(one_run, "kohya", card=card, out=out)


@pytest.mark.parametrize("moment", ["write", "card"])
def test_an_export_that_fails_leaves_the_earlier_one(one_run, tmp_path, monkeypatch, moment):
    out = tmp_path / "out"
    export_weights(one_run, "kohya", card=card, out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    if moment == "write":
        monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space left while exporting"):
        export_weights(one_run, "kohya", card=fail if moment == "card" else card, out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"first", "out"}


def test_an_adapter_of_another_model_leaves_no_folder(one_run, tmp_path):
    with pytest.raises(CheckpointError, match="it was trained on another"):
        export_weights(one_run, "kohya", card=card, model="storybook")
    assert not (one_run / "export").exists()


def test_a_merge_tells_how_far_it_is(one_run):
    shares: list[float] = []
    export_weights(one_run, "merged", card=card, on_progress=shares.append)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len(shares) > 10
