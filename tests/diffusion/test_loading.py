import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from imgalign.diffusion import loading
from imgalign.diffusion.attention import warn_once
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.families.table import family_of
from imgalign.diffusion.loading import load_pipeline, plan_family, use_adapter
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.errors import CheckpointError, InputError

CPU = torch.device("cpu")


@pytest.fixture
def copy_of_pipeline(tiny_pipeline_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_pipeline_folder, tmp_path / "copy")


def test_a_folder_loads_silently_and_without_safety_checker(copy_of_pipeline, capfd):
    index = copy_of_pipeline / "model_index.json"
    settings = json.loads(index.read_text())
    settings["requires_safety_checker"] = True
    settings["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index.write_text(json.dumps(settings))
    pipeline = load_pipeline(str(copy_of_pipeline), device=CPU, dtype=torch.bfloat16)
    assert pipeline.unet.dtype == torch.bfloat16
    assert pipeline.safety_checker is None
    assert "".join(capfd.readouterr()) == ""


def test_a_planned_model_tells_what_the_loaded_one_does_and_holds_no_weights(copy_of_pipeline):
    loaded = family_of(load_pipeline(str(copy_of_pipeline), device=CPU))
    for weights in copy_of_pipeline.rglob("*.safetensors"):
        weights.unlink()
    planned = plan_family(str(copy_of_pipeline))
    assert planned.image_size() == loaded.image_size() == (16, 16)
    assert planned.max_tokens == loaded.max_tokens
    for prompt in ("", "the green tree", "house " * 20):
        assert planned.num_tokens(prompt) == loaded.num_tokens(prompt)
        assert planned.cut_text(prompt) == loaded.cut_text(prompt)
    parameters = [each for part in planned.parts.values() for each in part.parameters()]
    assert parameters
    assert all(each.is_meta for each in parameters)
    (copy_of_pipeline / "unet" / "config.json").write_text("{")
    with pytest.raises(InputError, match="expected json"):
        plan_family(str(copy_of_pipeline))


def test_storybook_is_the_shipped_folder(tiny_pipeline_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "STORYBOOK", tiny_pipeline_folder)
    assert load_pipeline("storybook", device=CPU).unet.config["sample_size"] == 8
    monkeypatch.setattr(loading, "STORYBOOK", tmp_path / "absent")
    with pytest.raises(InputError, match="reinstall"):
        load_pipeline("storybook", device=CPU)


def test_models_that_cannot_be_used_are_refused_in_one_line(copy_of_pipeline, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    index = copy_of_pipeline / "model_index.json"

    def refusal(model: object) -> str:
        with pytest.raises(InputError) as caught:
            load_pipeline(str(model), device=CPU)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "which is no folder here" in refusal(tmp_path / "absent")
    assert "expected model_index.json" in refusal(tmp_path)
    assert "notes.txt" in refusal(tmp_path)
    (copy_of_pipeline / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    assert "cannot load" in refusal(copy_of_pipeline)
    (copy_of_pipeline / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "expected diffusion_pytorch_model.safetensors" in refusal(copy_of_pipeline)
    index.write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    assert "is a DDPMPipeline; supported: StableDiffusionPipeline" in refusal(copy_of_pipeline)
    index.write_text("{")
    assert "expected json" in refusal(copy_of_pipeline)


def test_a_hub_model_that_cannot_be_fetched_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not in the hub's cache") as caught:
        load_pipeline("imgalign-tests/no-such-model", device=CPU)
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_model_is_refused_in_one_line(tiny_pipeline_folder, tmp_path):
    def pipeline():
        return load_pipeline(str(tiny_pipeline_folder), device=CPU)

    def refusal() -> str:
        with pytest.raises(CheckpointError) as caught:
            use_adapter(pipeline(), tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "cannot use this adapter" in refusal()
    DiffusionPolicy(pipeline(), LoraDiffusionConfig()).save(tmp_path)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    layers = load_file(file)
    use_adapter(pipeline(), tmp_path)
    # The library would say nothing and leave out what it cannot place.
    save_file(
        {name.replace("down_blocks.1", "down_blocks.7"): layer for name, layer in layers.items()},
        file,
    )
    assert f"16 of the adapter's {len(layers)} matrices have no place" in refusal()
    save_file({name: torch.cat([layer, layer], dim=1) for name, layer in layers.items()}, file)
    assert "size mismatch" in refusal()


def test_xformers_that_does_not_work_is_said_once_and_done_without(tiny_pipeline_folder, caplog):
    warn_once.cache_clear()
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            load_pipeline(str(tiny_pipeline_folder), device=CPU, attention="xformers")
    messages = [record.message for record in caplog.records]
    assert len(messages) == 1
    assert "using PyTorch's attention instead" in messages[0]


def test_an_xformers_that_cannot_be_imported_is_hidden_from_diffusers(tmp_path):
    for path, text in {
        "xformers/__init__.py": "",
        "xformers/ops.py": "raise OSError('undefined symbol: _ZN3c10')",
        "xformers-0.0.30.dist-info/METADATA": "Metadata-Version: 2.1\nName: xformers\n"
        "Version: 0.0.30\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    program = f"""
import sys, importlib.util
sys.path.insert(0, {str(tmp_path)!r})
assert importlib.util.find_spec("xformers")
import imgalign.diffusion
assert importlib.util.find_spec("xformers") is None  # which is what diffusers asks
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "undefined symbol" in done.stderr
