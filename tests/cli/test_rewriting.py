"""`imgalign rewrite`: rewrites on standard output, what became of the tries on standard error."""

import json
from pathlib import Path

import pytest
from red_texts import make_text_rankings
from tiny_language import TEMPLATE, build_tokenizer, write_language_model

from imgalign.cli.main import main
from imgalign.language.locking import lost_words
from imgalign.preferences.foreign.text_queue import group_texts
from imgalign.preferences.foreign.texts import read_completions

PROMPTS = ["a cat", "two birds and a red boat"]


def test_rewrites_are_printed_and_kept_with_all_that_was_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "rewrites.jsonl"
    file = tmp_path / "prompts.txt"
    file.write_text(f"{PROMPTS[1]}\n")
    command = ["rewrite", "--prompt", PROMPTS[0], "--prompts", str(file), "--out", str(out)]
    assert main(command) == 0
    first = capsys.readouterr()
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert first.out.splitlines() == [row["completion"] for row in rows]
    assert [row["prompt"] for row in rows] == PROMPTS
    assert [row["locked"] for row in rows] == [["cat"], ["two", "birds", "red", "boat"]]
    for row in rows:
        assert all(not lost_words(row["locked"], text) for text in row["completions"])
        assert row["completion"] == (row["completions"] or [row["prompt"]])[0]
    assert "\x1b" not in first.err
    assert "of 8 tries keep cat" in first.err
    assert main(command) == 0
    assert capsys.readouterr().out == first.out
    assert [each.prompt for each in read_completions(out).rows] == PROMPTS
    queued = group_texts(out, per_prompt=9)
    assert sorted(each.text for group in queued.groups for each in group) == sorted(
        text for row in rows if len(row["completions"]) > 1 for text in row["completions"]
    )


def test_a_difference_is_marked_with_plus_and_minus(capsys: pytest.CaptureFixture[str]):
    assert main(["rewrite", "--prompt", "a cat", "--lock", "cat", "--seed", "0"]) == 0
    printed = capsys.readouterr()
    assert "cat" in printed.out
    assert "{+" in printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected --prompt TEXT or --prompts FILE"),
        (["--prompt", "a cat", "--lock", "dog"], "lock: 'dog' is not in the prompt 'a cat'"),
        (["--prompt", "a cat", "--lock", "!"], "lock: expected words separated by commas"),
        (["--prompt", "a cat", "--template", "x"], "template: expected {prompt} in it, once"),
        (["--prompt", "a cat", "--temperature", "0"], "temperature: expected a number greater"),
        (["--prompt", "a cat", "--model", "nowhere"], "'nowhere', which is no folder here"),
        (["--prompt", "a cat " * 40], "tokens, and the rewriter reads 128"),
        (["--prompt", "  "], "expected text, got"),
        (["--prompt", "a cat", "--out", "."], "expected a file to write rewrites to"),
        (["--prompt", "a cat", "--out", "ideas.txt"], "exists and holds no rewrites; choose"),
        (["--prompts", "ideas.txt", "--out", "ideas.txt"], "exists and holds no rewrites"),
        (["--prompt", "a cat", "--out", "rows.jsonl"], "exists and holds no rewrites; choose"),
        (["--prompt", "a cat", "--out", "no/x.jsonl"], "there is no folder no; make it first"),
        (["--prompt", "a cat", "--image-model", "nowhere"], "'nowhere', which is no folder here"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value)[:40],
)
def test_what_cannot_be_rewritten_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    mine = {"ideas.txt": "a cat\n", "rows.jsonl": '{"prompt": "a cat"}\n'}
    for name, text in mine.items():
        Path(name).write_text(text, encoding="utf-8")
    assert main(["rewrite", *options]) == 2
    assert {name: Path(name).read_text(encoding="utf-8") for name in mine} == mine
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if not line.startswith("rewriting")]
    assert message in line
    assert printed.out == ""


def test_a_rewrite_that_the_image_model_would_cut_is_not_offered(
    capsys: pytest.CaptureFixture[str], tiny_pipeline_folder: Path, tmp_path: Path
):
    out = tmp_path / "rewrites.jsonl"
    prompt = "a red boat and two red birds"
    options = ["--prompt", prompt, "--lock", "none", "--temperature", "1", "--out", str(out)]
    assert main(["rewrite", *options, "--image-model", str(tiny_pipeline_folder)]) == 0
    (row,) = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    long = [each for each in row["left_out"] if each["reason"] == "is too long"]
    assert long
    assert all(each["detail"] != [""] for each in long)
    assert "longer than the image model reads" in capsys.readouterr().err


def test_a_text_reward_picks_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = write_language_model(tmp_path / "model", "llama", build_tokenizer(template=TEMPLATE))
    rankings, texts = make_text_rankings(30)
    table = tmp_path / "rankings.jsonl"
    rows = [
        {
            "prompt": each.prompt,
            "completions": [texts[sample] for sample in each.sample_ids],
            "ranks": [next(r for r, g in enumerate(each.ranking) if i in g) for i in range(3)],
        }
        for each in rankings
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reward, out = tmp_path / "reward", tmp_path / "rewrites.jsonl"
    fit = ["reward", "train", "--samples", "texts", "--file", str(table), "--out", str(reward)]
    assert main([*fit, "epochs=1", f"model={model}"]) == 0
    options = ["--prompt", "a cat", "--reward", str(reward), "--out", str(out)]
    assert main(["rewrite", *options]) == 0
    (row,) = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert row["rewards"] == sorted(row["rewards"], reverse=True)
    assert len(row["rewards"]) == len(row["completions"]) > 1
    assert row["prompt_reward"] is not None
    assert "of the prompt as it is" in capsys.readouterr().err


def test_a_prompt_and_its_rewrite_are_drawn_side_by_side_from_the_same_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_pipeline_folder: Path
):
    out = tmp_path / "images"
    options = ["--prompt", "a house", "--images-per-prompt", "2", "--steps", "2", "--seed", "3"]
    command = ["generate", *options, "--model", str(tiny_pipeline_folder), "--out", str(out)]
    assert main([*command, "--rewrite", "--lock", "house"]) == 0
    printed = capsys.readouterr()
    names = ["00000-3.png", "00001-3.png", "00002-4.png", "00003-4.png"]
    names.append("00000-plain-and-rewritten.png")
    assert printed.out.splitlines() == [str(out / name) for name in names]
    assert "of 8 tries keep house" in printed.err
    facts = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    assert [each["seed"] for each in facts] == [3, 3, 4, 4]
    assert [each["original_prompt"] for each in facts] == [None, "a house"] * 2
    assert [each["rewriter"] for each in facts] == [None, "storybook"] * 2
    assert facts[0]["prompt"] == "a house"
    assert lost_words(("house",), facts[1]["prompt"]) == ()
    assert main([*command, "--lock", "house"]) == 2
    assert "--lock: without effect without --rewrite" in capsys.readouterr().err
