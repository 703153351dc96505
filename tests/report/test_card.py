"""Claims: a model card says what the run knows, in lines that work, and nothing of this machine."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapter_runs import ALPHA, RANK, make_full_run, make_run
from PIL import Image
from reported_runs import voted

from imgalign.config import dump_config, load_config
from imgalign.diffusion.export import export_weights
from imgalign.evaluate.evaluation import Checkpoint
from imgalign.files import sha256
from imgalign.report.card import model_card
from imgalign.runs.exporting import Export
from imgalign.train.config import TrainConfig
from imgalign.train.data.rankings import RankingsConfig


@pytest.fixture
def made(run) -> Export:
    """The export of the run that the report's tests have."""
    return Export(
        layout="kohya",
        folder=run / "export" / "run-step-000004-kohya",
        name="run-step-000004",
        weights="run-step-000004.safetensors",
        source=run / "step-000004",
        choice="the best of 2 checkpoints (held-out reward 0.32)",
        model="storybook",
        network="unet",
        layers=("a", "b"),
        ranks=(2, 4),
        alphas=(8.0,),
    )


def evaluated(made: Export) -> None:
    """Let the evaluation be of these very weights."""
    path = made.source.parent / "evaluation" / "evaluation.json"
    found = json.loads(path.read_text())
    found["aligned"]["adapter_hash"] = sha256(made.source / "pytorch_lora_weights.safetensors")
    path.write_text(json.dumps(found))


def header(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_says_what_the_adapter_was_trained_on(made):
    card = model_card(made)
    assert "| base model | `storybook` |" in card
    assert "| adapter | 2 layers of rank 2 to 4 and alpha 8 |" in card
    assert "`step-000004`, the best of 2 checkpoints (held-out reward 0.32) |" in card
    assert "| algorithm | `grpo` |" in card
    assert "| data | `rollouts`, 6 training prompts |" in card
    assert "| reward model | `reward` |" in card
    assert "- `data.prompts.num_storybook`: `6`" in card
    assert "run.iterations" not in card
    assert "guidance scale of 1 (off)" in card
    assert "<lora:run-step-000004:1>" in card


def test_the_license_is_left_to_fill_in_and_only_the_hub_is_named_as_a_base(made):
    assert header(model_card(made)) == {
        "license": None,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "imgalign", "lora"],
    }
    assert header(model_card(replace(made, model="owner/model")))["base_model"] == "owner/model"
    assert header(model_card(replace(made, layout="peft")))["library_name"] == "peft"
    assert header(model_card(replace(made, layout="merged")))["tags"] == [
        *("text-to-image", "imgalign")
    ]


def test_a_local_model_that_is_called_like_one_of_the_hub_is_none(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "model").mkdir(parents=True)
    card = model_card(replace(made, model="owner/model"))
    assert "base_model" not in header(card)
    assert "| base model | `model` |" in card


def test_an_evaluation_of_these_very_weights_is_shown(made):
    assert "Not evaluated." in model_card(made), "that evaluation is of other weights"
    evaluated(made)
    card = model_card(made)
    assert re.search(r"Aligned beats the base in \d+ % of \d+ blind comparisons", card)
    assert "The judge is how <bright> it is." in card
    assert "95 % interval" in card


def test_the_verdict_of_votes_stands_beside_the_evaluation_or_alone(made, run):
    weights = Checkpoint(
        model="storybook",
        adapter=None,
        adapter_hash=sha256(made.source / "pytorch_lora_weights.safetensors"),
    )
    said = "Decided: the aligned checkpoint is preferred, by 12 prompts judged completely"
    kept = {"aligned": weights, "decision": said, "projects": ("cats-compare",)}
    voted(run, **kept)
    card = model_card(made)
    assert "Not evaluated." not in card
    assert "The judge is" not in card
    assert "Votes in the project `cats-compare`, counted on 2026-11-22:" in card
    assert "Annotators prefer the aligned image in 75 % of 20 blind votes" in card
    assert f"\n  {said}\n" in card
    (run / "evaluation-0.6").mkdir()
    weak = voted(run, **kept | {"aligned": replace(weights, strength=0.6)})
    weak.save(run / "evaluation-0.6")
    evaluated(made)
    card = model_card(made)
    assert card.index("The judge is how <bright> it is.") < card.index("Votes at strength 0.6 in")
    assert model_card(made, votes=()) != card
    assert "cats.db" not in card


def test_the_card_names_no_folder_of_this_machine(made, run, tmp_path):
    evaluated(made)
    settings = load_config(TrainConfig, run / "config.yaml")
    policy = settings.policy.model_copy(update={"model": str(tmp_path / "models" / "base")})
    dump_config(settings.model_copy(update={"policy": policy}), run / "config.yaml")
    card = model_card(replace(made, model=str(tmp_path / "models" / "base")))
    assert "`base`" in card
    assert str(tmp_path) not in card


def test_the_card_does_not_say_where_the_rankings_were(made, run):
    settings = load_config(TrainConfig, run / "config.yaml")
    place = "sqlite:////home/ann/secret/imgalign.db"
    data = RankingsConfig.model_validate({"database": place})
    dump_config(settings.model_copy(update={"data": data}), run / "config.yaml")
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["algorithm"] = {"name": "dpo"}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    card = model_card(made)
    assert "- `data.database`: `imgalign.db`" in card
    assert "secret" not in card


def test_what_cannot_be_read_is_left_out_with_a_warning(made, run, caplog):
    (run / "prompts.json").write_text("[")
    assert "an unknown number of training prompts" in model_card(made)
    (run / "config.yaml").write_text("policy: {modell: x}")
    (run / "evaluation" / "evaluation.json").write_text("{")
    card = model_card(made)
    assert "nothing more can be said of its training" in card
    assert "Not evaluated." in card
    assert "the model card says nothing of the training" in caplog.text


def test_names_cannot_leave_their_place_in_the_card(made, run):
    settings = load_config(TrainConfig, run / "config.yaml")
    reward = settings.reward.model_copy(update={"path": "a|b`c\n# Title"})
    dump_config(settings.model_copy(update={"reward": reward}), run / "config.yaml")
    card = model_card(made)
    assert r"| reward model | `a\|b'c # Title` |" in card
    assert "\n# Title" not in card


def test_an_adapter_from_elsewhere_has_a_card_that_claims_nothing(made, tmp_path):
    adapter = tmp_path / "style.safetensors"
    adapter.write_bytes(b"weights")
    card = model_card(replace(made, source=adapter, choice="", name="style"))
    assert "No run of imgalign is known for it" in card
    assert "checkpoint" not in card
    assert "guidance" not in card


@pytest.mark.parametrize(
    ("make", "layout", "claim"),
    [
        *(
            (make_run, layout, f"of rank {RANK} and alpha {ALPHA}")
            for layout in ("diffusers", "peft", "kohya", "merged")
        ),
        (make_full_run, "diffusers", "A trained unet for `pipeline`"),
        (make_full_run, "merged", "The model `pipeline` with its unet trained"),
    ],
)
def test_the_lines_of_python_in_the_card_draw_an_image(
    make, layout, claim, tiny_pipeline_folder, tmp_path
):
    run = make(tmp_path / "first", tiny_pipeline_folder)
    found = export_weights(run, layout, card=model_card)
    card = (found.folder / "README.md").read_text()
    assert claim in card
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    lines = lines.replace("path/to/this/folder", str(found.folder))
    lines = lines.replace("path/to/the/base/model", str(tiny_pipeline_folder))
    lines = lines.replace("your prompt", "a red house")
    said: dict[str, Any] = {}
    exec(lines, said)
    assert isinstance(said["image"], Image.Image)
    assert Path(found.folder, found.weights).exists()
