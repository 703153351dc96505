"""Claims: on a command line, a run that trained all weights is used like one that trained a LoRA,
and what only a LoRA can be is refused in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from submissions import judge, on_screen

from imgalign.cli.main import main
from imgalign.files import sha256
from imgalign.images import png
from imgalign.preferences.records import SamplerSettings
from imgalign.preferences.store import Store
from imgalign.runs.trained import find_weights, weights_hash

NETWORK = Path("unet/diffusion_pytorch_model.safetensors")
Lines = Callable[..., list[str]]


@pytest.fixture(scope="module")
def folder(tiny_pipeline_folder, tmp_path_factory) -> Path:
    """A working folder with `run`, which trained all weights of `model` on two images."""
    place = tmp_path_factory.mktemp("full")
    (place / "given").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (16, 16), colour).save(place / "given" / f"{colour}.png")
        (place / "given" / f"{colour}.txt").write_text(f"a {colour} house")
    (place / "prompts.txt").write_text("the green tree\ntwo boat\n")
    recipe = {
        "policy": {"model": str(tiny_pipeline_folder), "num_inference_steps": 3, "lora_rank": 2},
        "algorithm": {"name": "supervised", "weighting": {"kind": "equal"}},
        "data": {"from": "images", "folder": "given", "held_out": {"num_prompts": 0}},
        "optimizer": {"learning_rate": 1e-3},
        "run": {"iterations": 2, "checkpoint_every": 1, "patience": None, "device": "cpu"},
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train", "recipe.yaml", "policy.train=full", "--out", "run"]) == 0
    return place


@pytest.fixture
def succeed(folder, capsys, monkeypatch) -> Lines:
    """Runs a command in the folder that must succeed, and gives what it printed."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> list[str]:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert code == 0, err
        return out.splitlines()

    return run


@pytest.fixture
def refused(folder, capsys, monkeypatch) -> Callable[..., str]:
    """Runs a command in the folder that must be refused, and gives the line that says why."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        (error,) = [line for line in lines if line.startswith("error: ")]
        return error

    return run


def test_a_recipe_for_lora_loses_its_lora_settings_and_keeps_the_others(folder):
    settings = yaml.safe_load((folder / "run" / "config.yaml").read_text())["policy"]
    assert settings["train"] == "full"
    assert settings["num_inference_steps"] == 3
    assert not {"lora_rank", "lora_alpha", "target_modules", "adapter"} & settings.keys()
    checkpoint = folder / "run" / "step-000002"
    assert {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*.*")} == {
        *("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
        *("manifest.json", "reference.json", "trainer.json", "trainer.safetensors"),
    }


def test_it_generates(succeed, folder):
    generate = ("generate", "--prompt", "a red house", "--steps", "3", "--device", "cpu")
    (path,) = succeed(*generate, "--adapter", "run", "--out", "with")
    made = json.loads(Path(path).with_suffix(".json").read_text())
    assert made["adapter"] == "run/step-000002"
    assert made["adapter_hash"] == sha256(folder / "run" / "step-000002" / NETWORK)
    (base,) = succeed(*generate, "--model", made["model"], "--out", "without")
    assert Path(path).read_bytes() != Path(base).read_bytes()


def test_it_is_evaluated_reported_and_exported_with_that_evaluation(succeed, folder):
    lines = succeed(
        *("evaluate", "run", "prompts=prompts.txt", "images_per_prompt=2", "device=cpu"),
        *("sampler.num_inference_steps=3",),
    )
    assert lines[0] == "4 pairs of images were generated; no reward was given to judge them"
    found = json.loads((folder / "run" / "evaluation" / "evaluation.json").read_text())
    assert found["base"]["adapter"] is None
    assert found["aligned"]["adapter_hash"] == weights_hash(find_weights(folder / "run"))
    (report,) = succeed("report", "run")
    assert found["aligned"]["adapter_hash"] in Path(report).read_text()
    succeed("export", "run", "--format", "merged", "--out", "whole")
    card = (folder / "whole" / "README.md").read_text()
    assert "| trained | all weights of the unet |" in card
    assert "- `policy.train`: `full`" in card
    assert "4 pairs of images were generated" in card


def test_people_vote_on_it(succeed, folder, tiny_pipeline_folder):
    from imgalign.diffusion.generate import ImageGenerator

    generator = ImageGenerator(str(tiny_pipeline_folder), device="cpu")
    with Store.open(folder / "imgalign.db") as store:
        ids = []
        for weights in (None, Path("run")):
            generator.use(weights)
            settings = SamplerSettings(num_inference_steps=3)
            (made,) = generator.generate(["two boat"], seeds=[0], settings=settings)
            ids.append(store.add_image(png(made.image), made.provenance))
        store.add_item("two boat", ids, source="test")
        store.add_annotator("ann")
        item = store.next_item("ann")
        store.submit(judge(item, ranking=on_screen(store, item, ((1,), (0,)))))
    lines = succeed("evaluate", "run", "--votes", "--database", "sqlite:///imgalign.db")
    assert lines[0].startswith("Annotators prefer the aligned image in 100 % of 1 blind votes")


def test_it_is_exported_as_a_network_and_as_a_model_that_plain_diffusers_loads(succeed, folder):
    lines = succeed("export", "run", "--format", "diffusers", "--out", "alone")
    assert lines == [
        "run/step-000002: the newest of 2 checkpoints that can be read; none is marked best",
        "alone/unet: all weights of the unet",
    ]
    succeed("export", "run", "--format", "merged", "--out", "model", "--dtype", "float16")
    expected = UNet2DConditionModel.from_pretrained("run/step-000002/unet").state_dict()
    alone = UNet2DConditionModel.from_pretrained("alone", subfolder="unet").state_dict()
    whole = StableDiffusionPipeline.from_pretrained("model").unet.state_dict()
    assert expected.keys() == alone.keys() == whole.keys()
    for name, weight in expected.items():
        assert (weight == alone[name]).all()
        assert (weight.half() == whole[name]).all()
    # What was exported is taken in its place.
    generate = ("generate", "--prompt", "a red house", "--steps", "3", "--device", "cpu")
    (one,) = succeed(*generate, "--adapter", "run", "--out", "of-run")
    model = yaml.safe_load((folder / "run" / "config.yaml").read_text())["policy"]["model"]
    (same,) = succeed(*generate, "--adapter", "alone", "--model", model, "--out", "of-export")
    assert Path(one).read_bytes() == Path(same).read_bytes()


@pytest.mark.parametrize("layout", ["peft", "kohya"])
def test_there_is_no_adapter_to_export(refused, layout):
    line = refused("export", "run", "--format", layout)
    assert f"export {layout}: run/step-000002 has all weights of the network and no adapter" in line
    assert "--format merged" in line


def test_all_weights_of_a_model_with_a_lora_are_trained_after_merging_as_the_refusal_says(
    refused, succeed, folder
):
    succeed("train", "recipe.yaml", "run.iterations=1", "--out", "lora run")
    full = ("train", "recipe.yaml", "run.iterations=1", "policy.train=full")
    line = refused(*full, "policy.adapter=lora run", "--out", "never")
    said = re.search(r"merge it first: imgalign (.*), and set (policy.model=FOLDER)$", line)
    assert said is not None, line
    model = yaml.safe_load((folder / "recipe.yaml").read_text())["policy"]["model"]
    named = {"ADAPTER": "lora run", "MODEL": model, "FOLDER": "with-lora"}
    succeed(*(named.get(word, word) for word in said[1].split()))
    succeed(*full, said[2].replace("FOLDER", "with-lora"), "--out", "from-lora")
    assert weights_hash(find_weights(folder / "from-lora"))


def test_mistakes_are_one_line(refused, folder):
    train = ("train", "recipe.yaml", "--out", "other")
    line = refused(*train, "policy.adapter=nope")
    assert "policy.adapter: nope: no such folder" in line
    assert not (folder / "other").exists()
    line = refused(*train, "policy.train=full", "policy.lora_rank=4")
    only = "has no effect with policy.train=full, only with policy.train=lora"
    assert f"policy.lora_rank: {only}" in line
    line = refused(*train, "policy.train=full", "policy.adapter=run")
    assert f"policy.adapter: {only}; to train all weights of a model with this LoRA, " in line
    line = refused(*train, "policy.train=all")
    assert "policy.train: expected one of 'lora', 'full', got 'all'" in line
    line = refused(*train, "policy.adapter=run", "policy.lora_rank=null")
    assert "policy.adapter: run/step-000002: has all weights of the network and no adapter" in line
    assert not (folder / "other" / "metrics.jsonl").exists()
    line = refused("generate", "--prompt", "a boat", "--adapter", "run", "--model", "storybook")
    assert "do not fit this model; it was trained on another one" in line
