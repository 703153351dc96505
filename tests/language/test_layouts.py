"""Every stage runs by its command on models of other layouts than the embedded one's."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from imgalign.cli.main import main
from imgalign.runs.trained import find_weights

PROMPTS = ("a boat", "the tree", "a red house", "a gate", "the sun", "two geese", "a swan", "snow")
SMALL = (
    "policy.max_new_tokens=20",
    "policy.batch_size=4",
    "run.measure_every=1",
    "run.iterations=2",
)
SAMPLED = ("data.prompts_per_iteration=2", "data.group_size=4", "data.held_out.num_prompts=2")


def write(file: Path, rows: Iterator[Mapping[str, Any]]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gpt2"])
def test_every_stage_runs_one_after_the_other(kind, talkers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("".join(f"{each}\n" for each in PROMPTS), encoding="utf-8")
    examples = write(
        Path("examples.jsonl"), ({"prompt": each, "completion": f" {each} set"} for each in PROMPTS)
    )
    rankings = write(
        Path("rankings.jsonl"),
        (
            {"prompt": each, "completions": [" a", " the sand", " we go"], "ranks": [2, 0, 1]}
            for each in PROMPTS
        ),
    )

    def train(recipe: str, name: str, model: str | Path, *settings: str) -> Path:
        words = [f"policy.model={model}", *SMALL, *settings, "--out", name]
        assert main(["train", recipe, *words]) == 0, capsys.readouterr().err
        return find_weights(Path(name))

    given = f"data={{from: completions, file: {examples}, held_out: {{num_prompts: 2}}}}"
    sft = train("rewriter_sft", "sft", talkers[kind], given)
    fit = ["--file", str(rankings), f"model={sft}", "epochs=1", "--out", "reward"]
    assert main(["reward", "train", *fit]) == 0, capsys.readouterr().err
    own = ("data.prompts={file: prompts.txt}", *SAMPLED, "reward.path=reward")
    kept = ("algorithm.ptx=0.5", f"data.examples={examples}", "data.examples_per_iteration=4")
    ordered = f"data={{from: text_rankings, file: {rankings}, rankings_per_iteration: 4}}"
    runs = {
        "ppo": train("rewriter_ppo", "ppo", sft, *own, *kept),
        "grpo": train("rewriter_grpo", "grpo", sft, *own),
        "dpo": train("rewriter_dpo", "dpo", sft, ordered),
        "kto": train("rewriter_dpo", "kto", sft, ordered, "algorithm.name=kto"),
    }
    before = (sft / "model.safetensors").read_bytes()
    for name, found in runs.items():
        assert (found / "model.safetensors").read_bytes() != before, name
