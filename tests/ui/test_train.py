import json
import re
from html.parser import HTMLParser

import pytest

from imgalign.cli.main import main
from imgalign.errors import ConfigError, InputError
from imgalign.runs.metric_table import METRICS
from ui import form_notes, monitor, recipes, starting
from ui.forms import Form
from ui.run_queue import RunQueue
from ui.runs import Runs


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with one recipe of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text(
        "# Mine & <b>bold</b>. imgalign train mine\n# Not yet run.\n\n# not the header\n"
        "policy:\n  model: tiny <b>\n  num_inference_steps: 4\nalgorithm: {clip_nats: 1.5}\n"
        "optimizer: {learning_rate: 3.0e-4}\nrun: {patience: null}\n"
    )
    return tmp_path


class Recorded(Runs):
    """Runs that remember what they would have launched."""

    def launch(self, recipe, *, name, overrides=()):
        self.launched = (recipe.name, name, list(overrides))


def write_run(folder, *, steps, state="finished"):
    folder.mkdir(parents=True)
    lines = [{"step": s, "reward_mean": s / 10, "kl": 2.0 * s} for s in range(1, steps + 1)]
    lines[0]["held_out_reward"] = 0.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status = {"state": state, "pid": 1, "step": steps, "total": steps}
    (folder / "status.json").write_text(json.dumps(status))


def test_a_recipe_shows_its_header_as_text(here):
    recipe = recipes.read("mine")
    assert recipe.header == "Mine & <b>bold</b>. imgalign train mine\nNot yet run."
    assert "Mine &amp; &lt;b&gt;bold&lt;/b&gt;" in form_notes.describe("mine")


def test_ones_own_recipes_come_first_and_then_one_that_needs_no_reward(here):
    own, first, *others = recipes.names()
    assert own == "mine"
    assert not recipes.read(first).needs_reward
    values = {setting.path: setting.value for setting in recipes.explain(first).settings}
    assert values["policy.model"] == "storybook"
    assert others == sorted(others)


def test_settings_of_a_loop_are_no_recipe_to_train(here):
    (here / "configs" / "rounds.yaml").write_text("align: {recipe: mine}\n")
    assert not {"rounds", "storybook_loop"} & set(recipes.names())
    assert "storybook_dpo" in recipes.names()


def test_lines_of_a_header_that_are_set_in_go_on_with_the_one_before():
    text = "# Best of 8,\n#   the baseline.\n# imgalign train x\n#\n# Time: long.\na: 1\n# no"
    expected = "Best of 8, the baseline.\nimgalign train x\n\nTime: long."
    assert recipes.header_of(text) == expected


class Rows(HTMLParser):
    """The rows of the tables in a page: path of the setting, and the texts of the cells."""

    def __init__(self, page):
        super().__init__()
        self.rows = {}
        self.path = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.path = dict(attributes).get("data-setting")
        if self.path and tag == "tr":
            assert self.path not in self.rows, "a setting comes twice"
            self.rows[self.path] = []
        if self.path and tag in ("th", "td"):
            self.rows[self.path].append("")

    def handle_endtag(self, tag):
        if tag == "tr":
            self.path = None

    def handle_data(self, text):
        if self.path:
            self.rows[self.path][-1] += text


def cells(page):
    """Of each setting: its name in its group, its value, its default, its meaning."""
    return {
        path: (name, value, default.removeprefix("default "), meaning)
        for path, (name, value, default, meaning) in Rows(page).rows.items()
    }


def test_every_setting_is_shown_as_train_explain_prints_it(here, capsys):
    title, table, notes = form_notes.explain("mine", "", "")
    rows = cells(table)
    assert (title, notes) == (f"Settings: 4 of {len(rows)} differ from their default", "")
    assert main(["train", "configs/mine.yaml", "--explain"]) == 0
    printed = re.findall(r"^(\S+): (.+)\n((?: {4}.+\n)+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(path for path, _, _ in printed) == sorted(rows)
    for path, values, explanation in printed:
        name, value, default, meaning = rows[path]
        assert name == (path.partition(".")[2] or path)
        assert values == (value if value == default else f"{value} (default {default})")
        assert meaning == " ".join(explanation.split()).replace("`", "")


def test_what_a_recipe_changes_comes_first_and_in_the_groups_of_a_recipe(here):
    table = form_notes.explain("mine", "", "seed=3\n# a remark\n")[1]
    rows, first = cells(table), table.partition("<details>")[0]
    assert list(cells(first)) == [
        "policy.model",
        "policy.num_inference_steps",
        "algorithm.clip_nats",
        "seed",
        "run.patience",
    ]
    assert rows["policy.num_inference_steps"][:3] == ("num_inference_steps", "4", "10")
    assert rows["run.patience"][:3] == ("patience", "null", "4")
    assert rows["policy.model"][1] == "tiny <b>"  # text, and no tag
    assert rows["optimizer.learning_rate"][1:3] == ("0.0003", "0.0003")  # said, and the default
    groups = re.findall(r'scope="rowgroup">(\w+)<', table.partition("<details>")[2])
    assert groups == ["policy", "algorithm", "data", "reward", "optimizer", "run"]


def test_the_reward_and_the_overrides_of_the_form_are_in_the_table(here):
    table = form_notes.explain("mine", "runs/my reward", "run.iterations=7")[1]
    rows = cells(table.partition("<details>")[0])
    assert rows["reward.path"][1:3] == ("runs/my reward", "null")
    assert rows["run.iterations"][1:3] == ("7", "40")


def test_what_an_override_takes_out_of_a_recipe_is_said_on_the_page(here):
    _, table, notes = form_notes.explain("mine", "", "algorithm.name=supervised")
    assert "algorithm.name=supervised: replaces the algorithm section; dropped: clip_nats" in notes
    assert "algorithm.weighting.kind" in cells(table)
    assert "algorithm.clip_nats" not in cells(table)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "run.iterations=<i>",
            "run.iterations: expected a whole number, got &#x27;&lt;i&gt;&#x27;",
        ),
        ("no equals sign", "expected section.key=value"),
        ("policy.lora_targets=[a]", "policy.lora_targets: is now policy.target_modules"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_before_a_run_is_started(here, override, said):
    title, table, notes = form_notes.explain("mine", "", override)
    assert said in notes
    assert 'role="alert"' in notes
    assert (title, cells(table)) == ("Settings", {})


def test_a_recipe_that_is_not_there_or_not_yaml_is_one_line(here):
    with pytest.raises(InputError, match="no such file"):
        recipes.read("gone")
    (here / "configs" / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="line 1: expected") as caught:
        recipes.read("bad")
    assert "\n" not in str(caught.value)


def test_the_form_becomes_a_launch(here):
    runs = Recorded(here / "runs")
    overrides = "reward.path=storybook\n\n# a remark\n seed =2 \n"
    form = Form(recipe="mine", reward="", overrides=f"policy.model=storybook\n{overrides}")
    assert starting.begin(RunQueue(runs), form, " first ") == "first"
    changes = ["policy.model=storybook", "reward.path=storybook", "seed=2"]
    assert runs.launched == ("mine.yaml", "first", changes)
    assert starting.begin(RunQueue(runs), form) == "mine"
    assert runs.launched == ("mine.yaml", "mine", changes)
    judged = Form(recipe="mine", reward="runs/my reward", overrides="seed=2")
    assert judged.changes == ['reward.path="runs/my reward"', "seed=2"]


def test_a_reward_model_is_chosen_for_a_recipe_that_samples_and_for_no_other(here):
    fitted = [here / "runs" / "reward"]
    fitted[0].mkdir(parents=True)
    (fitted[0] / "contract.json").write_text("{}")
    named = ("reward", str(fitted[0]))
    sampling = form_notes.judges("mine", fitted)
    assert (sampling["choices"], sampling["value"]) == (
        [("as the recipe says", ""), named],
        named[1],
    )
    assert form_notes.judges("mine", [])["value"] == ""
    given = form_notes.judges("storybook_dpo", fitted)
    assert (given["choices"], given["value"]) == ([("none", ""), named], "")
    assert given["info"].startswith("Not needed: it learns from images")
    (here / "configs" / "bad.yaml").write_text("a: [1")
    assert form_notes.judges("bad", fitted)["value"] == named[1]


def test_without_a_recipe_nothing_is_launched(here):
    with pytest.raises(InputError, match="choose one"):
        starting.begin(RunQueue(Recorded(here / "runs")), Form(recipe=""))
    assert "No recipe" in form_notes.describe(None)
    assert form_notes.explain(None, "", "") == ("Settings", "", "")


def test_the_monitor_gets_the_curves_of_the_chosen_run(tmp_path):
    runs = Runs(tmp_path / "runs")
    assert monitor.view(runs, None)["missing"] == {
        "said": "The recipe to begin with, Quick taste, still needs rankings.",
        "of_rank": True,
    }
    write_run(runs.folder / "a", steps=3)
    write_run(runs.folder / "b", steps=2)
    value = monitor.view(runs, "a")
    assert {run["name"] for run in value["runs"]} == {"a", "b"}
    reward, kl = value["detail"]["charts"]
    assert reward["lines"][0]["points"] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert reward["lines"][1]["points"] == [(1, 0.5)]
    assert kl["lines"][0]["points"] == [(1, 2.0), (2, 4.0), (3, 6.0)]
    assert json.loads(json.dumps(value))["detail"]["name"] == "a"
    assert monitor.view(runs, "gone")["detail"]["name"] in {"a", "b"}


def test_charts_are_titled_and_explained_by_the_table_of_metrics(tmp_path):
    runs = Runs(tmp_path / "runs")
    write_run(runs.folder / "a", steps=2)
    reward, kl = monitor.view(runs, "a")["detail"]["charts"]
    assert (reward["title"], kl["title"]) == (METRICS["reward_mean"].title, METRICS["kl"].title)
    assert [line["name"] for line in kl["lines"]] == ["KL to the reference", "Held-out KL"]
    assert METRICS["kl"].watch.replace("`", "") in kl["about"]
    assert kl["about"].endswith("Unit: nats.")


def test_a_chart_is_shown_once_its_metric_was_measured(tmp_path):
    runs = Runs(tmp_path / "runs")
    write_run(runs.folder / "a", steps=1)
    (runs.folder / "a" / "metrics.jsonl").write_text('{"step": 0, "held_out_reward": 0.1}\n')
    (first,) = monitor.view(runs, "a")["detail"]["charts"]  # one to wait at
    assert [line["points"] for line in first["lines"]] == [[], [(0, 0.1)]]
    with (runs.folder / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "reward_mean": 0.2, "clip_fraction": 0.0}\n')
    titles = [chart["title"] for chart in monitor.view(runs, "a")["detail"]["charts"]]
    assert titles == [METRICS["reward_mean"].title, METRICS["clip_fraction"].title]


def test_what_a_direct_method_measures_is_drawn_and_so_is_a_kl_that_is_only_held_out(tmp_path):
    runs = Runs(tmp_path / "runs")
    write_run(runs.folder / "a", steps=1)
    keys = ["implicit_accuracy", "implicit_margin", "preference_loss"]
    keys += ["chosen_log_ratio", "rejected_log_ratio"]
    held_out = [f"held_out_{key}" for key in (*keys, "kl")]
    values = dict.fromkeys([*keys, *held_out, "gradient_factor", "negative_margins"], 0.5)
    (runs.folder / "a" / "metrics.jsonl").write_text(json.dumps({"step": 1, **values}) + "\n")
    charts = monitor.view(runs, "a")["detail"]["charts"]
    drawn = [line["name"] for chart in charts for line in chart["lines"] if line["points"]]
    assert sorted(drawn) == sorted(METRICS[key].title for key in values)
    together = [[line["name"] for line in chart["lines"]] for chart in charts]
    assert ["Log-ratio of the best", "Log-ratio of the worst"] in together
    (kl,) = [chart for chart in charts if chart["title"] == "KL to the reference"]
    assert METRICS["held_out_kl"].meaning in kl["about"]


def test_long_curves_are_thinned_and_keep_their_ends():
    points = [(step, float(step)) for step in range(10_000)]
    thin = monitor.thinned(points)
    assert len(thin) == monitor.MOST_POINTS
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    assert thin == sorted(set(thin))
    assert monitor.thinned(points[:5]) == points[:5]


def test_the_page_stands_with_a_damaged_run_a_damaged_curve_and_a_damaged_recipe(here):
    runs = Runs(here / "runs")
    write_run(runs.folder / "good", steps=3)
    write_run(runs.folder / "curve", steps=3)
    (runs.folder / "curve" / "metrics.jsonl").write_bytes(
        b'{"step": 1, "reward_mean": 0.1}\nwhat\n'
    )
    write_run(runs.folder / "bad", steps=3)
    (runs.folder / "bad" / "status.json").write_text("{")
    good = monitor.view(runs, "good")
    assert {run["name"]: run["state"] for run in good["runs"]} == {
        "good": "finished",
        "curve": "finished",
        "bad": "damaged",
    }
    assert len(good["detail"]["charts"][0]["lines"][0]["points"]) == 3
    assert "status.json" in monitor.view(runs, "bad")["detail"]["message"]
    curve = monitor.view(runs, "curve")["detail"]
    assert curve["charts"][0]["lines"][0]["points"] == [(1, 0.1)]  # what can be read is drawn
    (runs.folder / "curve" / "metrics.jsonl").unlink()
    (runs.folder / "curve" / "metrics.jsonl").mkdir()
    assert "metrics.jsonl" in monitor.view(runs, "curve")["detail"]["charts_failed"]
    (here / "configs" / "aaa.yaml").write_bytes(b"\xff")
    (here / "configs" / "bbb.yaml").write_text("[" * 10_000)
    for name in ("aaa", "bbb", "gone"):
        assert 'role="alert"' in form_notes.describe(name)
        assert 'role="alert"' in form_notes.explain(name, "", "")[2]
