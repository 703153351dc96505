import json
import os
from dataclasses import asdict

import pytest
from submissions import judge

from imgalign.config import dump_config, load_config
from imgalign.errors import ConfigError, ImgalignError, InputError
from imgalign.train.config import TrainConfig
from ui import checks, form_notes, forms, monitor, needs, outlook, recipes, starting
from ui.forms import Form
from ui.pages import train_form
from ui.run_queue import RunQueue
from ui.runs import Runs


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs in a working folder with a recipe of its own, and no process that would start."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text(
        "# Mine. Time: an hour.\npolicy: {num_inference_steps: 4}\nrun: {iterations: 12}\n"
    )
    return Recorded(tmp_path / "runs")


class Recorded(Runs):
    """Runs that remember what they would have launched."""

    def __init__(self, folder, **options):
        super().__init__(folder, **options)
        self.launched = []

    def launch(self, recipe, *, name, overrides=()):
        self.launched.append((recipe.stem, name, list(overrides)))


def begin(runs, recipe, *, reward="", name="", overrides=""):
    return starting.begin(
        RunQueue(runs), Form(recipe=recipe, reward=reward, overrides=overrides), name
    )


def write_reward(folder, kind="images"):
    folder.mkdir(parents=True)
    (folder / "contract.json").write_text(json.dumps({"kind": kind}))
    return str(folder)


def write_failed(runs, name, **files):
    folder = runs.folder / name
    folder.mkdir(parents=True)
    status = {"state": "failed", "pid": 1, "step": 0, "total": 9, "message": "it failed"}
    (folder / "status.json").write_text(json.dumps(status))
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text)
    return folder


def write_finished(runs, name, *, seconds, overrides=(), checkpoint=b""):
    folder = runs.folder / name
    (folder / "step-000012").mkdir(parents=True)
    (folder / "step-000012" / "pytorch_lora_weights.safetensors").write_bytes(checkpoint)
    status = {"state": "finished", "pid": 1, "step": 12, "total": 12}
    (folder / "status.json").write_text(json.dumps(status))
    cost = {"seconds": seconds, "peak_memory_gb": 2.5, "forward_passes": 1000.0}
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, **cost}) + "\n" for step in (1, 2))
    )
    dump_config(
        load_config(TrainConfig, recipes.read("mine").path, overrides), folder / "config.yaml"
    )
    return folder


# --- nothing is started that cannot work


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        ("mine", "", "reward.path: expected a reward model"),
        ("mine", "reward.path=runs/gone", "reward.path: runs/gone: expected the folder of a"),
        ("mine", "--out=/tmp", "override '--out=/tmp': expected section.key=value"),
        ("mine", "run.iteratons=3\nreward.path=storybook", "did you mean 'iterations'"),
        ("mine", "policy.model=./gone\nreward.path=storybook", "policy.model: ./gone: no such"),
        ("mine", "policy.adapter=gone\nreward.path=storybook", "policy.adapter: gone: no such"),
        ("mine", "data.prompts.file=gone.txt\nreward.path=storybook", "gone.txt"),
        ("sd15_dpo", "", "pairs"),
        ("storybook_dpo", "", "expected rankings, got none"),
        ("rewriter_dpo", "", "run the recipe rewriter_sft first"),
    ],
)
def test_what_cannot_work_is_found_before_a_process_starts(runs, store, recipe, overrides, said):
    with pytest.raises(ImgalignError) as caught:
        begin(runs, recipe, name="new", overrides=overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert runs.launched == []
    assert not runs.form_path("new").exists()


def test_a_reward_of_texts_does_not_judge_images(runs):
    reward = write_reward(runs.folder / "of texts", kind="texts")
    with pytest.raises(InputError, match="got one of texts"):
        begin(runs, "mine", reward=reward)


@pytest.mark.parametrize("name", ["storybook", "annotators:cosy", "hf-hub:owner/model"])
def test_a_reward_that_is_no_folder_is_left_to_the_process(runs, name):
    begin(runs, "mine", name="new", overrides=f"reward.path={name}")
    assert [called for _, called, _ in runs.launched] == ["new"]


def test_rankings_are_looked_for_where_the_process_finds_them(runs, store, add_items, tmp_path):
    add_items(4)
    store.add_annotator("Ada")
    while (item := store.next_item("Ada")) is not None:
        store.submit(judge(item, "Ada"))
    elsewhere = Recorded(tmp_path / "runs", database=f"sqlite:///{tmp_path / 'imgalign.db'}")
    (tmp_path / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IMGALIGN_DATABASE", "sqlite:///of-another-app.db")
        checks.check(elsewhere, recipes.read("storybook_dpo").path, ["policy.batch_size=1"])


# --- a failed run and its name


def test_the_name_of_a_failed_run_without_work_can_be_used_again(runs):
    write_failed(runs, "a", config__yaml="run: {}", prompts__json="{}")
    assert begin(runs, "mine", reward="storybook", name="a") == "a"
    assert not (runs.folder / "a").exists()


def test_the_name_of_a_run_with_work_cannot(runs):
    folder = write_failed(runs, "a")
    (folder / "step-000001").mkdir()
    with pytest.raises(InputError, match="there is a run of that name"):
        begin(runs, "mine", reward="storybook", name="a")
    assert (folder / "step-000001").exists()


@pytest.mark.parametrize(
    ("work", "holds"),
    [("step-000003", "1 checkpoint"), ("metrics.jsonl", "measurements"), ("mine.png", "mine.png")],
)
def test_a_run_with_work_is_deleted_only_when_its_name_is_typed(runs, work, holds):
    folder = write_failed(runs, "a")
    if work.startswith("step"):
        (folder / work).mkdir()
    else:
        (folder / work).write_text("{}\n")
    for typed in ("", "b", "A"):
        with pytest.raises(InputError, match=holds):
            runs.delete("a", typed=typed)
    assert (folder / work).exists()
    assert monitor.view(runs, "a")["detail"]["work"]
    runs.delete("a", typed="a")
    assert not folder.exists()
    assert runs.names() == []


def test_what_is_kept_of_a_run_beside_it_goes_with_it_and_of_others_stays(runs):
    write_failed(runs, "a")
    for name in ("a", "a.b"):
        forms.keep(runs, name, Form(recipe="mine"))
        runs.form_path(name).with_name(f"{name}.log").write_text("$")
        runs.form_path(name).with_name(f"{name}.json").write_text("{}")
    runs.delete("a")
    assert runs.names() == ["a.b"]
    assert forms.kept(runs, "a.b") == Form(recipe="mine")
    assert sorted(path.name for path in runs.form_path("a").parent.iterdir()) == [
        "a.b.form",
        "a.b.json",
        "a.b.log",
    ]


@pytest.mark.parametrize("name", ["..", "../b", "", "gone", ".launches"])
def test_nothing_but_a_run_is_deleted(runs, name):
    write_failed(runs, "a")
    (runs.folder.parent / "b").mkdir()
    with pytest.raises(InputError):
        runs.delete(name, typed=name)
    assert (runs.folder / "a").exists()
    assert (runs.folder.parent / "b").exists()


# --- overrides


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("run.iterations = 20", ["run.iterations=20"]),
        ("  seed =3 \n# a remark\n\n", ["seed=3"]),
        ("data.held_out.file = my prompts = x.txt", ["data.held_out.file=my prompts = x.txt"]),
        ("--out = /tmp", ["--out = /tmp"]),
    ],
)
def test_spaces_around_the_equals_sign_are_no_matter(typed, read):
    assert forms.lines_of(typed) == read


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("iterations = 20", "run.iterations=20"),
        ("run.iteratons=20", "run.iterations=20"),
        ("runs.iterations=20", "run.iterations=20"),
        ("run.iterations: 20", "run.iterations=20"),
        ("batch_sise=4", "policy.batch_size=4"),
        ("lora_rank 4", "policy.lora_rank=4"),
    ],
)
def test_what_was_probably_meant_is_offered(runs, typed, meant):
    fix = forms.fix_of("mine", f"# mine\n{typed}\nseed=3")
    assert fix is not None
    assert (fix.meant, fix.text) == (meant, f"# mine\n{meant}\nseed=3")


@pytest.mark.parametrize(
    "typed",
    [
        "run.iterations = 20",
        "num_prompts=3",
        "xyzzy=1",
        "policy.kind=language",
        "reward.path=x",
        "",
    ],
)
def test_nothing_is_offered_for_what_is_right_and_for_what_may_mean_several(runs, typed):
    assert forms.fix_of("mine", typed) is None


# --- once more, with changes


def test_a_run_keeps_the_form_it_was_started_from(runs):
    form = Form(recipe="mine", reward="", overrides="# why\nreward.path=storybook\nseed = 3")
    name = starting.begin(RunQueue(runs), form)
    assert runs.launched == [("mine", "mine", ["reward.path=storybook", "seed=3"])]
    assert forms.form_of(runs, name) == form


def test_of_a_run_of_a_terminal_the_form_is_worked_out(runs):
    write_finished(runs, "a", seconds=1.0, overrides=["reward.path=runs/mine", "seed=3"])
    expected = Form(recipe="mine", reward="runs/mine", overrides="seed=3")
    assert forms.form_of(runs, "a") == expected


def test_of_a_run_whose_settings_are_gone_there_is_no_form(runs):
    write_failed(runs, "a")
    with pytest.raises(InputError, match="its settings are not known"):
        forms.form_of(runs, "a")


def test_a_copied_form_keeps_its_reward_however_its_folder_is_written(runs, tmp_path):
    offered = ["", str(tmp_path / "runs" / "a"), "runs/b"]
    form = Form(recipe="mine", reward="runs/a", overrides="seed=3")
    assert forms.fitted_into(form, offered) == (offered[1], "seed=3")
    form = Form(recipe="mine", reward=str(tmp_path / "runs" / "b"))
    assert forms.fitted_into(form, offered) == ("runs/b", "")
    assert forms.fitted_into(Form(recipe="mine"), offered) == ("", "")


def test_a_reward_that_is_not_offered_any_more_is_not_changed_for_another(runs):
    form = Form(recipe="mine", reward="runs/gone", overrides="seed=3\n")
    assert forms.fitted_into(form, ["", "runs/b"]) == ("", 'seed=3\nreward.path="runs/gone"')
    again = Form(recipe="mine", reward="", overrides='seed=3\nreward.path="runs/gone"')
    assert sorted(again.changes) == sorted(form.changes)


@pytest.mark.parametrize("kept", ["", "{", "[1]", '["a", "b", "c", 4]', "null", "7", '{"a": 1}'])
def test_a_form_that_a_browser_kept_may_be_anything(kept):
    assert train_form.form_in(kept) == (None, "")


def test_a_form_comes_back_from_a_browser():
    form = Form(recipe="mine", reward="r", overrides="seed=3")
    kept = json.dumps([form.recipe, form.reward, "first", form.overrides])
    assert train_form.form_in(kept) == (form, "first")
    assert set(asdict(form)) == {"recipe", "reward", "overrides"}


# --- the list of recipes and of runs


def test_recipes_that_can_be_started_come_first_and_others_say_what_they_need(runs, store):
    offered = {each.name: each for each in needs.offered(runs)}
    assert next(iter(offered)) == "rewriter_sft"
    assert offered["storybook_dpo"].needs == "rankings"
    assert (
        offered["rewriter_grpo"].needs == "a reward model of texts and the model runs/rewriter_sft"
    )
    assert (offered["sd15_dpo"].goal, offered["sd15_dpo"].line) == (
        "My pairs",
        "Needs a folder of pairs, no reward model. Gives a LoRA for Stable Diffusion 1.5. "
        "Missing: the folder pairs.",
    )
    assert offered["storybook_dpo"].line.startswith("Needs rankings, no reward model. Gives ")
    assert offered["rewriter_dpo"].line.startswith("Needs rankings of texts, no reward model. ")
    assert needs.first_choice(list(offered.values())) == "storybook_dpo"
    write_reward(runs.folder / "reward")
    offered = {each.name: each for each in needs.offered(runs)}
    assert offered["storybook_grpo"].needs == offered["mine"].needs == ""
    assert (offered["mine"].goal, offered["mine"].line) == (
        "mine",
        "Needs a reward model of images. Mine.",
    )
    assert next(iter(offered)) == "mine" == needs.first_choice(list(offered.values()))
    ready = [not each.needs for each in offered.values()]
    assert ready == sorted(ready, reverse=True)


@pytest.fixture
def judge_alone(store, add_items):
    """Like and dislike images one by one, or rank them where a set has more than one."""

    def do(count, *, num_images=1, project="likes"):
        prompts = [f"a house, number {n}, {num_images}" for n in range(count)]
        add_items(count, num_images=num_images, overlap=1, project=project, prompts=prompts)
        store.add_annotator("ann")
        for number in range(count):
            item = store.next_item("ann", project=project)
            is_bad = {"verdict": "all_bad", "ranking": None} if number % 2 else {}
            store.submit(judge(item, **is_bad))

    return do


def test_likes_and_dislikes_have_a_recipe_that_says_what_it_needs(runs, store, judge_alone):
    def line(name):
        return {each.name: each for each in needs.offered(runs)}[name]

    assert line("storybook_likes").goal == "My likes and dislikes"
    assert line("storybook_likes").needs == "likes"
    assert line("rewriter_likes").needs == "likes of texts and the model runs/rewriter_sft"
    assert line("storybook_likes").line.startswith("Needs likes, no reward model. ")
    judge_alone(24)
    assert line("storybook_likes").needs == ""
    assert line("storybook_dpo").needs == "rankings"
    assert line("storybook_dpo").line.endswith("Missing: rankings.")
    assert needs.first_choice(needs.offered(runs)) == "storybook_likes"
    assert needs.missing_at_first(runs) is None
    assert form_notes.prospects(runs, "storybook_likes", "", "")[0] == ""
    said = form_notes.prospects(runs, "storybook_dpo", "", "")[0]
    goal = recipes.GOALS["storybook_likes"].name
    assert f"or take the recipe “{goal}”, which learns from these" in said
    judge_alone(2, num_images=2, project="ranked")
    assert line("storybook_dpo").needs == line("storybook_likes").needs == ""
    assert needs.first_choice(needs.offered(runs)) == "storybook_dpo"


def test_rankings_alone_are_no_likes_but_for_a_recipe_of_ones_own(runs, store, judge_alone):
    settings = recipes.read("storybook_likes").path.read_text(encoding="utf-8")
    for name in ("own", "mine"):
        (runs.folder.parent / "configs" / f"{name}.yaml").write_text(settings)
    judge_alone(2, num_images=2)
    needed = {each.name: each.needs for each in needs.offered(runs)}
    assert (needed["storybook_likes"], needed["storybook_dpo"]) == ("likes", "")
    assert needed["own"] == ""


def test_every_shipped_recipe_says_what_it_is_for_in_a_short_line_of_its_own(runs, store):
    found = [each for each in needs.offered(runs) if each.name != "mine"]
    goals = [each.goal for each in found]
    assert sorted(set(goals)) == sorted(goals)
    assert all(goal and len(goal) < 45 for goal in goals), goals
    assert all(each.line.startswith("Needs ") and len(each.line) < 150 for each in found)
    assert set(recipes.GOALS) <= {each.name for each in found}


def test_only_rewards_that_score_what_a_recipe_samples_are_offered(runs):
    images, texts = (write_reward(runs.folder / kind, kind=kind) for kind in ("images", "texts"))

    def offered(recipe):
        found = form_notes.judges(recipe, runs.rewards())
        return [value for _, value in found["choices"] if value], found["value"]

    assert offered("mine") == offered("storybook_grpo") == ([images], images)
    assert offered("rewriter_grpo") == ([texts], texts)
    assert offered("rewriter_drawn") == ([images], images)  # it scores what its texts lead to
    assert offered("storybook_dpo") == ([images], "")


def test_runs_keep_their_places_whatever_they_do(runs):
    for age, name in enumerate(("newest", "middle", "oldest")):
        folder = write_failed(runs, name, prompts__json="{}")
        touch(folder / "prompts.json", 1e9 - age)
        touch(folder / "status.json", 1e9 + age)
    names = [run["name"] for run in monitor.view(runs, None)["runs"]]
    assert names == ["newest", "middle", "oldest"]
    touch(runs.folder / "oldest" / "status.json", 2e9)
    assert [run["name"] for run in monitor.view(runs, None)["runs"]] == names


def touch(path, at):
    os.utime(path, (at, at))


# --- what it will cost


def lines(runs, *overrides):
    changes = ["reward.path=storybook", *overrides]
    recipe = recipes.read("mine")
    settings = recipes.settings_with(recipe, changes)
    return {term: text for term, text in outlook.outlook(settings, recipe, runs)}


def test_without_an_earlier_run_the_recipe_says_what_it_takes(runs):
    said = lines(runs, "run.iterations=3", "data.prompts_per_iteration=2")
    assert said["Work"] == "3 iterations of 16 images, 48 in all; 192 sampling steps"
    assert said["Time"] == "an hour, says the recipe, for its 12 iterations; elsewhere it differs"
    assert said["Memory"] == "not known before a first run of this kind with storybook"
    assert "checkpoints" in said["Disk"]


def test_an_earlier_run_of_the_same_kind_gives_the_estimate(runs):
    write_finished(runs, "a", seconds=30.0, checkpoint=bytes(2_000_000))
    said = lines(runs)
    assert said["Time"] == "about 6 min, by the run a on this machine"  # 12 of 30 s
    assert said["Memory"] == "about 2.5 GB, by the same run"
    assert said["Disk"].startswith("up to about 10.0 MB: 5 checkpoints like those of a; ")
    assert "about 12,000 passes" in said["Work"]
    # A quarter of the samples, and twice the iterations.
    said = lines(runs, "data.group_size=2", "run.iterations=24")
    assert said["Time"].startswith("about 3 min")


def test_a_run_of_another_kind_says_nothing(runs):
    write_finished(runs, "a", seconds=30.0, overrides=["policy.num_inference_steps=8"])
    assert "says the recipe" in lines(runs)["Time"]


def test_wrong_settings_cost_nothing(runs):
    assert form_notes.prospects(runs, "mine", "", "run.iterations=x") == ("", "")
    lacks, cost = form_notes.prospects(runs, "mine", "", "")
    assert "Cannot be started yet" in lacks
    assert "12 iterations" in cost
    with pytest.raises(ConfigError):
        checks.check(runs, recipes.read("mine").path, ["run.iterations=x"])
