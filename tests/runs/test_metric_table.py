"""Claims: every metric is explained once, in the table; the page and charts are made from it."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from image_folders import pair_folder
from language_runs import language_settings, start_language, write_talker
from PIL import Image
from random_walk import Brightness, walk_data, walk_settings
from torch import Tensor
from walk_runs import start

from imgalign.runs.metric_table import CHARTS, METRICS, TABLE, document
from imgalign.runs.metrics import read_metrics
from imgalign.train.drawn import DrawnConfig, DrawnReward

ROOT = Path(__file__).parents[2]
TABLES = {"metric_table.py", "algorithm_metrics.py"}
COMMAND = "python -m imgalign.runs.metric_table > docs/metrics.md"


def blank_images(texts: Sequence[str], _: Sequence[int]) -> Tensor:
    return torch.zeros(len(texts), 3, 4, 4)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> set[str]:
    """Every key that short runs with each kind of algorithm and data write."""
    keys = set()
    algorithms: tuple[dict[str, object], ...] = (
        {"name": "grpo"},
        {"name": "ppo"},
        {"name": "supervised"},
    )
    given = tmp_path_factory.mktemp("images")
    Image.new("RGB", (4, 4), "red").save(given / "a.png")
    (given / "a.txt").write_text("a red house")
    images = {"from": "images", "folder": str(given), "held_out": {"num_prompts": 0}}
    plain = {"name": "supervised", "weighting": {"kind": "equal"}}
    runs = [walk_settings(algorithm=each, iterations=2) for each in algorithms]
    runs.append(walk_settings(algorithm=plain, data=images, iterations=2, measure_every=5))
    folder = pair_folder(tmp_path_factory.mktemp("pairs"))
    pairs = {"from": "folder", "folder": str(folder), "held_out": {"num_prompts": 1}}
    direct = {"name": "dpo", "refresh": {"every": 1, "max_nats": 1.0}}
    runs.append(walk_settings(algorithm=direct, data=pairs, iterations=2))
    examples = walk_data(examples=str(given))
    kept = walk_settings(algorithm={"name": "grpo", "ptx": 0.5}, data=examples, iterations=2)
    runs.append(kept)
    model = write_talker(tmp_path_factory.mktemp("talker") / "model")
    texts = tmp_path_factory.mktemp("run") / "texts"
    rewriting = language_settings(model, iterations=1, policy={"max_new_tokens": 16})
    data = rewriting.data.model_copy(update={"original_share": 0.25})
    drawn = DrawnReward(Brightness(), blank_images, DrawnConfig(), seed=0)
    start_language(texts, rewriting.model_copy(update={"data": data}), reward=drawn)
    keys |= {key for record in read_metrics(texts / "metrics.jsonl") for key in record}
    for number, settings in enumerate(runs):
        out = tmp_path_factory.mktemp("run") / str(number)
        start(out, settings=settings)
        keys |= {key for record in read_metrics(out / "metrics.jsonl") for key in record}
    return keys


def test_every_key_that_a_run_writes_is_in_the_table(written):
    assert written - set(METRICS) == set()


def test_every_key_in_the_table_is_written_by_some_run(written):
    assert set(METRICS) - written == set()


def test_the_page_in_docs_is_made_from_the_table():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == document(), f"write it again: {COMMAND}"
    assert COMMAND in page
    assert all(page.count(f"| `{metric.key}` |") == 1 for metric in TABLE)


def test_the_command_that_the_page_names_prints_it():
    module = COMMAND.split()[2]
    program = [sys.executable, "-m", module]
    said = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout == document()


def test_what_is_drawn_together_has_one_unit():
    for chart in CHARTS:
        keys = [key for key in (chart.key, chart.beside, chart.spread) if key is not None]
        assert len({METRICS[key].unit for key in keys}) == 1, keys


def test_texts_are_sentences_that_a_table_of_markdown_can_hold():
    for metric in TABLE:
        assert metric.title, metric.key
        assert metric.meaning.endswith("."), metric.key
        assert metric.watch == "" or metric.watch.endswith("."), metric.key
        assert not {"|", "\n", "<"} & set(metric.caption), metric.key
        assert metric.caption.count("`") % 2 == 0, metric.key


def test_the_report_and_the_app_name_metrics_of_the_table_only():
    """A key of a metric is what is asked of a series, or looked up in the table."""
    named = set()
    files = [*(ROOT / "imgalign" / "report").glob("*.py"), *(ROOT / "ui").rglob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="series"), args=[ast.Constant(value=key)]):
                    named.add(key)
                case ast.Subscript(value=ast.Name(id="METRICS"), slice=ast.Constant(value=key)):
                    named.add(key)
    assert {"seconds", "kl"} <= named
    assert named <= set(METRICS)


def test_no_meaning_is_written_down_a_second_time():
    for package in ("imgalign", "ui"):
        for path in (ROOT / package).rglob("*"):
            if path.suffix in {".py", ".js", ".html"} and path.name not in TABLES:
                text = path.read_text(encoding="utf-8")
                copies = [metric.key for metric in TABLE if metric.meaning in text]
                assert not copies, f"{path}: {copies}"


def test_the_table_needs_no_torch():
    program = "import sys, imgalign.runs.metric_table; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert said.stdout == "False\n"
