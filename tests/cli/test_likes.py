"""Claims: single images that people like or dislike are queued, and KTO learns from them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from submissions import judge

from imgalign.cli.main import main
from imgalign.preferences.store import Store

Command = Callable[..., tuple[int, str]]
RECIPE = {
    "data": {"from": "rankings", "held_out": {"num_prompts": 0}},
    "optimizer": {"learning_rate": 1e-3},
    "run": {"iterations": 2, "checkpoint_every": 2, "patience": None, "device": "cpu"},
}


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    """Runs a command in a new folder; its exit code, and all that it said there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(list(arguments))
        return code, "".join(capsys.readouterr())

    return run


def test_kto_learns_from_likes_and_dislikes_of_single_images_and_others_say_that_it_does(
    command: Command, tmp_path: Path, tiny_pipeline_folder: Path
):
    (tmp_path / "prompts.txt").write_text("a red house\na blue boat\nthe green tree\ntwo boat\n")
    made = ("--prompts", "prompts.txt", "--model", str(tiny_pipeline_folder), "--steps", "2")
    code, said = command("candidates", *made, "--per-prompt", "1", "--create")
    assert code == 0, said
    assert "4 items are queued" in said
    with Store.open(tmp_path / "imgalign.db") as store:
        store.add_annotator("ann")
        for number in range(4):
            fields = {} if number % 2 else {"verdict": "all_bad", "ranking": None}
            store.submit(judge(store.next_item("ann"), **fields))
    policy = {"model": str(tiny_pipeline_folder), "num_inference_steps": 3, "lora_rank": 2}
    recipe = RECIPE | {"policy": policy, "algorithm": {"name": "kto"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code, said = command("train", "recipe.yaml", "--out", "run")
    assert code == 0, said
    assert "finished at iteration 2" in said
    code, said = command("train", "recipe.yaml", "algorithm.name=dpo", "--out", "other")
    assert code == 2
    assert "got 2 that are all bad and 2 that are likes" in said
    assert "use algorithm.name=kto, which learns from likes" in said
    code, said = command("reward", "train", "--out", "reward")
    assert code == 2
    assert "4 judgements of single samples are left out" in said
