"""Every command does its work once: on one tiny demo, from candidates to the report.

A command without a function here fails `test_every_command_has_a_test`; test_world_models.py has
those of `imgalign storybook train`.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from judge_server import judge_server
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen
from texts import add_texts
from typer.main import get_command

from imgalign import demo
from imgalign.cli.main import app, main
from imgalign.config import dump_config, load_config
from imgalign.demo import DemoConfig
from imgalign.images import png
from imgalign.preferences.store import Store
from imgalign.train.config import TrainConfig

pytestmark = pytest.mark.slow

TINY_RUN = (
    *("policy.num_inference_steps=4", "policy.batch_size=8", "policy.lora_rank=2"),
    *("algorithm.credited_steps=2", "algorithm.kl_steps=1"),
    *("data.prompts_per_iteration=2", "data.group_size=4"),
    *("data.prompts.num_storybook=6", "data.held_out.num_prompts=2"),
    *("run.iterations=2", "run.checkpoint_every=1", "run.measure_every=2"),
    *("run.samples.every=2", "run.samples.num_prompts=2"),
)


class TinyDemo(DemoConfig):
    """The demo on so few images that it shows nothing but that it works."""

    num_prompts: int = 24
    images_per_prompt: int = 3
    num_annotators: int = 2
    candidate_steps: int = 2
    comparison_steps: int = 2
    num_evaluation_prompts: int = 3
    evaluation_images_per_prompt: int = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of all commands below, with ./demo made by `imgalign demo`."""
    place = tmp_path_factory.mktemp("loop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("IMGALIGN_DATABASE", raising=False)
        recipe = place / "tiny.yaml"
        dump_config(load_config(TrainConfig, Path("storybook_grpo"), TINY_RUN), recipe)
        patch.setattr(demo, "RECIPE", recipe)
        patch.setattr(demo, "DemoConfig", TinyDemo)
        assert main(["demo", "--out", "demo", "--seed", "1"]) == 0
        yield place


@pytest.fixture
def succeed(folder, capsys):
    """Runs a command that must succeed, and gives what it printed on stdout."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


STORE = ("--database", "sqlite:///demo/imgalign.db")


def test_demo(folder):
    made = {path.relative_to(folder / "demo").as_posix() for path in (folder / "demo").rglob("*")}
    assert {
        "imgalign.db",
        "reward/contract.json",
        "reward/model.safetensors",
        "run/config.yaml",
        "run/metrics.jsonl",
        "run/step-000002/pytorch_lora_weights.safetensors",
        "run/evaluation/evaluation.json",
        "run/evaluation/before_after.png",
        "run/report.html",
    } <= made
    lines = (folder / "demo/run/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps[-2:] == [1, 2]
    found = json.loads((folder / "demo/run/evaluation/evaluation.json").read_text())
    assert len(found["pairs"]) == 6


TINY_LOOP = (
    *("policy.num_inference_steps=2", "policy.lora_rank=2", "data.held_out.num_prompts=1"),
    *("run.iterations=1", "run.measure_every=1", "run.samples.num_prompts=1"),
)


def test_loop(succeed, folder):
    settings = (
        f"align={{recipe: storybook_dpo, overrides: [{', '.join(TINY_LOOP)}]}}",
        "reward=none",
        "candidates={num_prompts: 5, per_prompt: 2, sampler: {num_inference_steps: 2}}",
        "compare={num_prompts: 2, images_per_prompt: 1, sampler: {num_inference_steps: 2}}",
        "stop.max_rounds=1",
    )
    out = succeed("loop", "storybook_loop", *settings, "--out", "rounds")
    assert "round 1 of at most 1, from the pretrained model: vote" in out
    assert out.splitlines()[-1] == f"report  {folder / 'rounds' / 'report.html'}"
    again = succeed("loop", "rounds/loop.yaml")
    assert again.splitlines()[-3:] == out.splitlines()[-3:]
    explained = succeed("loop", "storybook_loop", "stop.patience=2", "--explain")
    assert "stop.patience: 2 (default 1)" in explained


def test_candidates(succeed, folder):
    (folder / "prompts.txt").write_text("a red cat\na blue house\n")
    new = ("--database", "sqlite:///mine.db")
    out = succeed(
        *("candidates", "--prompts", "prompts.txt", "--per-prompt", "2", "--steps", "2"),
        *("--adapter", "demo/run", "--scheduler", "euler_a", "--guidance", "2"),
        *(*new, "--create", "--item-list", "items.txt"),
    )
    assert "4 images made in" in out
    assert "2 items" in out
    assert "imgalign ui" in out
    listed = (folder / "items.txt").read_text().split()
    again = succeed(
        *("candidates", "--prompts", "prompts.txt", "--per-prompt", "2", "--steps", "2"),
        *("--adapter", "demo/run", "--scheduler", "euler_a", "--guidance", "2"),
        *(*new, "--resume", "--item-list", "items.txt"),
    )
    assert "4 images are there already\n0 images made in" in again
    assert (folder / "items.txt").read_text().split() == listed
    assert len(listed) == 2
    ids = [path.stem for path in (folder / "images").rglob("*.png")]
    assert len(ids) == 4
    with Store.open(folder / "mine.db") as store:
        made = [store.provenance(image_id) for image_id in ids]
    assert {(each.scheduler, each.steps, each.guidance_scale) for each in made} == {
        ("euler_a", 2, 2.0)
    }


def test_storybook_rank(succeed):
    new = ("--database", "sqlite:///ranked.db")
    succeed(
        *("candidates", "--storybook-prompts", "2", "--per-prompt", "2", "--steps", "2"),
        *(*new, "--create"),
    )
    out = succeed("storybook", "rank", "--annotators", "2", *new)
    counts = [int(number) for number in re.findall(r"\d+", out)]
    assert sum(counts) == 2  # an item each: one annotator per item was asked for


def test_storybook_draw(succeed, folder):
    assert succeed("storybook", "draw", "a red cat", "--out", "cat.png", "--size", "64") == (
        "cat.png\n"
    )
    with Image.open(folder / "cat.png") as image:
        assert image.size == (64, 64)


def test_reward_train(succeed, folder):
    out = succeed("reward", "train", "--out", "again", "epochs=2", *STORE)
    assert "held-out pair accuracy" in out
    assert out.endswith("written to again\n")
    assert (folder / "again" / "contract.json").is_file()


def test_reward_eval(succeed):
    assert "held-out pair accuracy" in succeed("reward", "eval", "demo/reward", *STORE)


def test_reward_score(succeed, folder):
    Image.new("RGB", (64, 64), "red").save(folder / "red.png")
    out = succeed("reward", "score", "demo/reward", "red.png", "--prompt", "a red house")
    score, path, prompt = out.rstrip("\n").split("\t")
    assert (path, prompt) == ("red.png", "a red house")
    assert re.fullmatch(r"[+-]\d+\.\d{4}", score)


def test_train(succeed, folder):
    out = succeed(
        "train", "tiny.yaml", "reward.path=demo/reward", "run.iterations=1", "--out", "one"
    )
    assert out.startswith("one: ")
    assert (folder / "one" / "step-000001" / "manifest.json").is_file()


def test_train_on_rankings(succeed, folder, monkeypatch):
    monkeypatch.setenv("IMGALIGN_CACHE", str(folder / "cache"))
    small = [each for each in TINY_RUN if not each.startswith(("algorithm", "data.p", "data.g"))]
    rankings = ["data.database=demo/imgalign.db", "data.rankings_per_iteration=4"]
    arguments = ["train", "storybook_dpo", *small, *rankings, "--out", "runs/dpo"]
    assert "finished at iteration 2" in succeed(*arguments)
    assert list((folder / "cache").rglob("*.safetensors"))
    more = "run.iterations=3"
    assert "finished at iteration 3" in succeed(*arguments, more, "--resume")
    records = (folder / "runs/dpo/metrics.jsonl").read_text().splitlines()
    assert "held_out_implicit_accuracy" in json.loads(records[0])
    assert "implicit_margin" in json.loads(records[-1])


def test_generate(succeed, folder):
    out = succeed("generate", "--prompt", "a red cat", "--adapter", "demo/run", "--steps", "2")
    assert out == "generated/00000-0.png\n"
    facts = json.loads((folder / "generated" / "00000-0.json").read_text())
    assert (facts["prompt"], facts["seed"]) == ("a red cat", 0)


def test_rewrite(succeed, folder):
    (line,) = succeed("rewrite", "--prompt", "a cat", "--out", "rewrites.jsonl").splitlines()
    row = json.loads((folder / "rewrites.jsonl").read_text(encoding="utf-8"))
    assert (row["prompt"], row["completion"]) == ("a cat", line)


def test_evaluate(succeed, folder):
    out = succeed(
        *("evaluate", "demo/run", "num_prompts=2", "images_per_prompt=2"),
        *("sampler.num_inference_steps=2", "sampler.scheduler=euler"),
        *("--reward", "demo/reward", "--group", "cosy", "--out", "compared"),
    )
    assert "of 4 blind comparisons" in out
    found = json.loads((folder / "compared" / "evaluation.json").read_text())
    assert len(found["pairs"]) == 4
    for side in ("base", "aligned"):
        made = json.loads((folder / "compared" / found["images"] / f"{side}.json").read_text())
        assert {each["scheduler"] for each in made} == {"euler"}


def test_report(succeed, folder):
    assert succeed("report", "demo/run", "--out", "page.html") == "page.html\n"
    assert "<h2>Before and after</h2>" in (folder / "page.html").read_text()


def test_export(succeed, folder):
    out = succeed("export", "demo/run", "--format", "kohya", "--out", "style")
    taken, made = out.splitlines()
    assert re.fullmatch(r"demo/run/step-00000\d: the (best|newest) of 2 checkpoints.*", taken)
    assert re.fullmatch(r"style/run-step-00000\d\.safetensors: \d+ layers of rank 2", made)
    drawn = succeed("generate", "--prompt", "a red cat", "--adapter", "style", "--steps", "2")
    assert (folder / drawn.strip()).is_file()
    assert "Not evaluated" not in (folder / "style" / "README.md").read_text()


def test_doctor(succeed):
    out = succeed("doctor", "tiny.yaml")
    assert re.search(r"^imgalign +\d", out, re.M)
    assert "BAD" not in out
    assert len(re.findall(r"^ok ", out, re.M)) >= 4


def test_ratings(succeed, folder):
    with Store.open(folder / "rated.db") as store:
        store.add_annotator("ann")
        for prompt in ("a red cat", "a blue house"):
            ids = [
                store.add_image(
                    png(Image.new("RGB", (8, 8), (len(prompt), shade, 0))),
                    provenance(prompt=prompt, adapter=adapter),
                )
                for shade, adapter in enumerate(["demo/run", None])
            ]
            store.add_item(prompt, ids, source="test")
            item = store.next_item("ann")
            store.submit(judge(item, ranking=on_screen(store, item, ((0,), (1,)))))
    out = succeed("ratings", "--ridge", "0.1", "--database", "sqlite:///rated.db")
    assert "demo/run" in out.splitlines()[1]
    assert "m + demo/run was preferred to m in 100 % of 2 blind votes" in out
    assert "Not decided by 2 prompts" in out


def test_feedback(succeed, folder):
    (folder / "mine.yaml").write_text("name: mine\nprinciples: [{text: It is short.}]\n")
    with Store.open(folder / "judged.db") as store:
        add_texts(store, ["a cat", "a red cat in the snow"], prompt="cat")
    by = ("--constitution", "mine.yaml", "--judge", "tiny")
    with judge_server() as server:
        out = succeed("feedback", *by, "--url", server.url, "--database", "sqlite:///judged.db")
    assert "1 rankings" in out


def test_data_export(succeed, folder):
    assert "all.jsonl: " in succeed("data", "export", "all.jsonl", *STORE)
    lines = (folder / "all.jsonl").read_text().splitlines()
    assert sum('"ranking_id"' in line for line in lines) > 0


def test_data_people(succeed):
    lines = succeed("data", "people", *STORE).splitlines()
    assert lines[0].split()[-1] == "annotator"
    assert lines[-2].startswith("Krippendorff's alpha (ordinal): ")
    assert lines[-1].startswith("Fleiss' kappa (better, worse, tie): ")


def test_data_import(succeed):
    succeed("data", "export", "moved.jsonl", *STORE)
    new = ("--database", "sqlite:///there.db", "--create")
    out = succeed("data", "import", "moved.jsonl", "--source-images", "demo/images", *new)
    assert "rankings are new" in out


ACCOUNTS = ("--database", "sqlite:///accounts.db")


@pytest.fixture
def typed(monkeypatch):
    """A password on standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("four odd green words\n"))


@pytest.fixture
def admin(succeed, folder, typed) -> str:
    """The name of the first account of a store."""
    if not (folder / "accounts.db").exists():
        succeed("accounts", "add", "Ada", "--role", "admin", "--create", *ACCOUNTS)
        sys.stdin.seek(0)
    return "Ada"


def test_accounts_add(succeed, admin):
    assert "Bea may log in: lead" in succeed("accounts", "add", "Bea", "--role", "lead", *ACCOUNTS)


def test_accounts_invite(succeed, admin):
    assert "http://127.0.0.1:7860/join#" in succeed("accounts", "invite", *ACCOUNTS)


def test_accounts_list(succeed, admin):
    assert "Ada: admin, group default, since 20" in succeed("accounts", "list", *ACCOUNTS)


def test_accounts_role(succeed, admin):
    assert "Ada is admin" in succeed("accounts", "role", admin, "admin", *ACCOUNTS)


def test_accounts_password(succeed, admin):
    assert "its sessions ended" in succeed("accounts", "password", admin, *ACCOUNTS)


def test_accounts_disable(succeed, admin):
    succeed("accounts", "add", "Cid", *ACCOUNTS)
    assert "Cid is disabled" in succeed("accounts", "disable", "cid", *ACCOUNTS)


def test_accounts_enable(succeed, admin):
    succeed("accounts", "add", "Dan", *ACCOUNTS)
    assert "Dan may log in again" in succeed("accounts", "enable", "Dan", *ACCOUNTS)


def test_store_check(succeed):
    assert succeed("store", "check", *STORE)


def test_ui(folder):
    command = [sys.executable, "-m", "imgalign", "ui", "--port", "0", "--runs", "demo", *STORE]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        said: Any = server.stdout.readline()
        address = re.search(r"http://\S+", said)[0]
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.status == 200
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=30)
    assert server.returncode in (0, 130)


def commands(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name


def test_every_command_has_a_test():
    assert isinstance(app, typer.Typer)
    for command in commands(get_command(app)):
        if command.startswith("storybook train "):
            continue
        assert f"test_{command.replace(' ', '_')}" in globals(), f"imgalign {command}: test it here"
