"""The page of a run: honest, self-contained, and written whatever is missing or damaged."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from html_pages import Commands, read
from PIL import Image
from reported_runs import Redness, begin_run, fitted_reward, judge, make_iterations, voted

from imgalign.algorithms.objectives import DPOConfig
from imgalign.config import dump_config, load_config
from imgalign.errors import InputError
from imgalign.evaluate.evaluation import FOLDER, load_evaluation
from imgalign.report.text import NO_BREAK
from imgalign.report.writing import write_report
from imgalign.runs.status import RunStatus, write_status
from imgalign.train.config import TrainConfig
from imgalign.train.data.rankings import TableConfig
from imgalign.train.data.source import HeldOutConfig

# --- the whole page


def test_the_page_needs_nothing_from_outside(finished):
    text, page = read(finished / "report.html")
    assert all(address.startswith(("data:image/", "#")) for address in page.loads)
    assert "<script" not in text
    assert "@import" not in text
    # what is left are names of XML formats, which nobody fetches
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.findall(r"url\((?!#)", text)


def test_a_finished_run_has_every_section(finished):
    text, page = read(finished / "report.html")
    assert page.headings == [
        "Before and after",
        "What was done",
        "Training",
        "By kind of prompt",
        "Oracle and reward",
        "Votes of annotators",
        "Reward model",
        "Images over training",
        "What got worse",
        "Where the aligned model won by most",
        "How to repeat it",
    ]
    assert 'class="missing"' not in text


def test_the_verdict_is_the_evaluations_own_sentence(finished):
    found = load_evaluation(finished)
    text, _ = read(finished / "report.html")
    assert found.verdict() in text.replace(NO_BREAK, " ")


def test_text_from_outside_is_escaped(finished):
    text, _ = read(finished / "report.html")
    assert "how &lt;bright&gt; it is" in text
    assert "two &lt;people&gt; agree" in text
    assert "<bright>" not in text
    assert "<people>" not in text


def test_the_page_can_be_written_elsewhere_and_is_the_same(finished, tmp_path):
    out = tmp_path / "deep" / "page.html"
    assert write_report(finished, out=out) == out
    assert out.read_bytes() == (finished / "report.html").read_bytes()


# --- unfinished runs


def test_a_run_that_has_not_begun_says_what_to_run(tmp_path):
    run = begin_run(tmp_path / "run")
    text, page = read(write_report(run))
    assert page.headings == ["How to repeat it"]
    assert text.count('class="missing"') == 6
    for command in ("train", "evaluate", "report"):
        assert f"imgalign {command} {run.name}" in text
    assert page.images == 0


def test_a_run_in_progress_says_how_far_it_is(tmp_path):
    run = begin_run(tmp_path / "run")
    make_iterations(run, 2)
    write_status(run, RunStatus.of_this_process("running", 2, 4, eta_seconds=300.0))
    text, page = read(write_report(run))
    assert "running: iteration 2 of 4, about 5 min left" in text.replace(NO_BREAK, " ")
    assert "Training" in page.headings
    assert "No verdict yet." in text


def test_a_comparison_without_images_or_oracle_is_still_told(run):
    judge(run, proxy=Redness())
    next((run / FOLDER).glob("*/base.png")).unlink()
    (run / FOLDER / "before_after.png").unlink(missing_ok=True)
    text, _ = read(write_report(run))
    assert "by the reward model it was trained on" in text
    assert "Before and after.</b> The images were not kept" in text
    assert "Oracle and reward.</b> Needs an oracle reward" in text
    assert not (run / FOLDER / "before_after.png").exists()


def test_what_is_no_run_or_damaged_is_one_clear_line(run, tmp_path):
    with pytest.raises(InputError, match=r"no run here \(no config.yaml\)"):
        write_report(tmp_path)
    with pytest.raises(InputError, match=r"give the folder of a reward model"):
        write_report(run, reward=tmp_path)
    with pytest.raises(InputError, match="give the folder of an evaluation"):
        write_report(run, evaluation=tmp_path)
    next((run / FOLDER).glob("*/base.png")).write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"base.png: expected a PNG, JPEG or WebP image"):
        write_report(run)


# --- damage


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"", b"null", b"[]", b"{}"])
@pytest.mark.parametrize(
    "name", ["evaluation/evaluation.json", "evaluation/votes.json", "reward/report.json"]
)
def test_a_damaged_input_is_one_line_that_names_it(run, tmp_path, name, content):
    reward = fitted_reward(tmp_path / "reward")
    file = tmp_path / "reward" / "report.json" if name.startswith("reward") else run / name
    file.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(file))) as caught:
        write_report(run, reward=reward)
    assert "again" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"), [("images_per_prompt", 0), ("num_prompts", 5), ("pairs", [])]
)
def test_an_evaluation_whose_counts_do_not_fit_its_pairs_is_refused(run, key, value):
    file = run / FOLDER / "evaluation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(InputError, match="pairs, got"):
        write_report(run)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_an_evaluation_with_a_number_that_is_none_is_refused(run, number):
    file = run / FOLDER / "evaluation.json"
    values = json.loads(file.read_text())
    values["pairs"][0]["oracle"][0] = "here"
    file.write_text(json.dumps(values).replace('"here"', number))
    with pytest.raises(InputError, match=r"evaluation.json: damaged .*; evaluate again"):
        write_report(run)


def test_numbers_that_are_none_stop_neither_plots_nor_counts(run):
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(json.loads(last) | {"step": 10**30}) + "\n")
        for key in ("reward_mean", "seconds", "dropped_images", "kl"):
            for value in ("NaN", "Infinity", "1e999", 10**30):
                changed = json.dumps(json.loads(last) | {key: 0})
                file.write(changed.replace(f'"{key}": 0', f'"{key}": {value}') + "\n")
    text, _ = read(write_report(run))
    assert "nan" not in re.sub("<[^>]*>", "", text).lower().split()


def test_a_sheet_that_is_too_small_for_its_images_is_refused(run):
    (sheet,) = (run / FOLDER).rglob("base.png")
    Image.new("RGB", (1, 1)).save(sheet)
    with pytest.raises(InputError, match=r"base.png: too small for 6 x 2 images; evaluate again"):
        write_report(run)


# --- commands


def test_every_command_can_be_copied_into_a_shell_whatever_the_folder_is_called(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = begin_run(tmp_path / "my run's  2 %, <b>; $HOME *")
    reader = Commands()
    reader.feed(write_report(run).read_text(encoding="utf-8"))
    lines = [line for text in reader.found for line in text.splitlines() if "imgalign " in line]
    words = [shlex.split(line) for line in lines]
    name, config = run.name, f"{run.name}/config.yaml"
    assert ["imgalign", "evaluate", name] in words
    assert ["imgalign", "evaluate", name, "--votes"] in words
    assert ["imgalign", "report", name, "--reward", "FOLDER"] in words
    assert ["imgalign", "train", config, "--out", name, "--resume"] in words
    assert ["imgalign", "train", config, "--out", "NEW_FOLDER"] in words
    assert all(name in line or config in line for line in words)


def test_a_page_for_others_names_no_folder_of_this_machine(run, monkeypatch):
    path = Path("/home/ann/secret/place")
    settings = load_config(TrainConfig, run / "config.yaml")
    changed = {
        "policy": settings.policy.model_copy(update={"model": str(path), "adapter": str(path)}),
        "data": TableConfig(file=path / "pairs.jsonl", held_out=HeldOutConfig(file=path)),
        "algorithm": DPOConfig(),
    }
    dump_config(settings.model_copy(update=changed), run / "config.yaml")
    write_status(
        run, RunStatus.of_this_process("failed", 4, 4, message=f"failed: {path}/x.png: damaged")
    )
    words = ["/home/ann/bin/imgalign", "evaluate", f"{path}/run", f"--reward={path}/reward"]
    monkeypatch.setattr(sys, "argv", words)
    judge(run, proxy=Redness())
    voted(run, database=f"sqlite:///{path}/imgalign.db", command=f"imgalign evaluate {run} --votes")
    text, page = read(write_report(run))
    assert "Aligning place <span>run</span>" in text
    assert "Failed: x.png: damaged." in text
    assert "imgalign evaluate run --reward=reward" in text
    assert "file: pairs.jsonl" in text
    assert "imgalign.db, 2026-11-22" in text
    assert page.headings[-1] == "How to repeat it"
    for secret in ("ann", "secret", *run.parts[1:-1]):
        assert not re.search(rf"\b{re.escape(secret)}/", text), secret
