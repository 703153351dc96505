import json
from pathlib import Path

import pytest
from evaluations import brightness, compare

from imgalign.config import dump_config, find_config, load_config
from imgalign.evaluate.evaluation import FILE, FOLDER
from imgalign.train.config import TrainConfig
from ui import monitor, stages
from ui.runs import Runs

REWARDS = {0: 0.5, 6: 0.7, 12: 0.9, 18: 0.6}


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path / "runs")


def write_status(folder, **status):
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"pid": 1, "total": 24, **status}))


def write_run(runs, name="a", *, state="finished", message=None, values=REWARDS, best=12, **of):
    """A run that measured these held-out values, with a checkpoint at each but the first."""
    folder = runs.folder / name
    step = max(values, default=0)
    write_status(folder, state=state, step=step, message=message)
    key = of.get("key", "held_out_reward")
    lines = [{"step": at, key: value, "held_out_kl": at / 4} for at, value in values.items()]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for at in (at for at in values if at > 0):
        (folder / f"step-{at:06d}").mkdir()
        (folder / f"step-{at:06d}" / "pytorch_lora_weights.safetensors").touch()
    if best is not None:
        (folder / "best.json").write_text(json.dumps({"checkpoint": f"step-{best:06d}"}))
    settings = load_config(TrainConfig, find_config(Path(of.get("recipe", "storybook_dpo"))))
    dump_config(settings, folder / "config.yaml")
    return folder


def detail(runs, name="a"):
    return monitor.view(runs, name)["detail"]


def test_a_finished_run_says_which_iteration_is_best_why_and_where_it_is(runs, tmp_path):
    write_run(runs)
    verdict = detail(runs)["verdict"]
    assert verdict["headline"] == ("Use iteration 12: its held-out reward is the highest measured")
    assert verdict["facts"] == [
        "Held-out reward: 0.5 at the start, 0.9 at iteration 12, 0.6 at iteration 18, the last "
        "measured.",
        "KL at iteration 12: 3 nats per sample.",
    ]
    assert verdict["path"] == str(tmp_path / "runs" / "a" / "step-000012")
    commands = [command for _, command in verdict["commands"]]
    assert commands == [
        f"imgalign evaluate {runs.folder / 'a'}",
        f"imgalign export {runs.folder / 'a'} --format kohya",
    ]
    assert verdict["compare"] == "generate?checkpoint=a/step-000012"
    assert [address for _, address in verdict["downloads"]] == [
        f"api/exports/a/step-000012/{layout}" for layout in ("kohya", "diffusers", "peft")
    ]


def test_a_run_that_was_measured_says_how_often_it_beats_its_base(runs):
    folder = write_run(runs)
    (folder / "prompts.json").write_text('{"training": [], "held_out": ["a red house"]}')
    found = compare(folder / "step-000012", folder / FOLDER, oracle=brightness)
    fact = detail(runs)["verdict"]["facts"][0]
    assert fact.startswith("Iteration 12 beats its base in 100 % of 12 blind comparisons on new ")
    assert found.summary.win_rate.rate.value == 1.0
    (folder / FOLDER / FILE).write_text("{}")
    assert "no evaluation of this version" in detail(runs)["verdict"]["facts"][0]


def test_of_a_loss_the_lowest_is_best(runs):
    write_run(runs, values={0: 0.69, 6: 0.5, 12: 0.4, 18: 0.6}, key="held_out_preference_loss")
    headline = detail(runs)["verdict"]["headline"]
    assert headline.startswith("Use iteration 12: its held-out preference loss is the lowest")


def test_a_better_value_beyond_the_limits_of_the_run_is_not_hidden(runs):
    write_run(runs, values={0: 0.5, 6: 0.7, 12: 0.9}, best=6)
    headline = detail(runs)["verdict"]["headline"]
    assert headline.endswith("is the highest within the limits of the run")


def test_without_a_best_iteration_the_last_one_is_named_and_why(runs):
    write_run(runs, "worse", values={0: 0.5, 6: 0.3}, best=None)
    write_run(runs, "blind", values={0: 0.5, 6: 0.3}, best=None, key="loss")
    assert detail(runs, "worse")["verdict"]["headline"] == (
        "Use iteration 6, the last one, with care: no iteration has a better held-out reward"
    )
    blind = detail(runs, "blind")["verdict"]
    assert "the last one: nothing was measured on held-out prompts" in blind["headline"]
    assert blind["facts"] == ["KL at iteration 6: 1.5 nats per sample."]


def test_a_run_that_goes_on_or_saved_nothing_has_no_verdict(runs):
    write_run(runs, "none", state="failed", values={0: 0.5}, best=None)
    assert detail(runs, "none")["verdict"] is None


def test_what_to_do_with_a_language_model_is_something_else(runs):
    write_run(runs, recipe="rewriter_dpo")
    verdict = detail(runs)["verdict"]
    assert not verdict["compare"]
    assert [command.rpartition("--format ")[2] for _, command in verdict["commands"]][1] == (
        "transformers"
    )


@pytest.mark.parametrize(
    "message",
    [
        "stopped at iteration 18; resume with --resume",
        "stopped at iteration 18",
    ],
)
def test_a_stopped_run_says_go_on_with_resume(runs, message):
    write_run(runs, state="stopped", message=message)
    found = detail(runs)
    assert found["message"].endswith(" iteration 18; go on with Resume")
    told = monitor.view(runs, "a", admin=False)["detail"]["message"]  # a lead has no such button
    assert told.endswith(" iteration 18; an admin can resume it")
    assert found["verdict"]["headline"].startswith("So far: Use iteration 12")


def test_a_run_that_was_killed_says_how_to_go_on_and_what_it_may_have_lacked(runs):
    message = "the process ended abruptly after iteration 18; resume to continue"
    write_run(runs, state="stopped", message=message)
    ended = "the process ended abruptly after iteration 18"
    again = "if that happens again, the memory may not be enough"
    assert detail(runs)["message"] == (
        f"{ended}; go on with Resume; {again}: lower policy.batch_size, or set "
        "policy.gradient_checkpointing=true"
    )
    told = monitor.view(runs, "a", admin=False)["detail"]["message"]
    assert told == f"{ended}; an admin can resume it; {again}: an admin can start it with less"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("reward.path: expected a folder; fit one", "reward.path: expected a folder; fit one"),
        ("CUDA out of memory. Tried to allocate 2 GB", "lower policy.batch_size"),
        ("KeyError: 'unet'", "a fault of the program: the log below"),
    ],
)
def test_a_failed_run_says_its_reason_and_a_cure_in_one_line(runs, message, said):
    write_run(runs, state="failed", message=message)
    found = detail(runs)["message"]
    assert said in found
    assert "\n" not in found


def test_prompts_of_the_sample_rows_are_held_out_ones_first(runs):
    folder = write_run(runs)
    prompts = {"training": [f"t{number}" for number in range(9)], "held_out": ["h0", "h1"]}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    assert detail(runs)["prompts"] == []  # there is no grid yet
    (folder / "samples").mkdir()
    (folder / "samples" / "step-000006.png").touch()
    assert detail(runs)["prompts"] == ["h0", "h1", "t0", "t1", "t2", "t3"]


LOADING = "Loading the model and checking that it can be trained"


@pytest.mark.parametrize(
    ("step", "log", "said"),
    [
        (0, "", LOADING),
        (
            0,
            "in iteration 1/24: sampling, 12 of 64 images",
            "Iteration 1 of 24: sampling, 12 of 64 images",
        ),
        (0, "5 checks passed", "Checks passed; now it samples and measures the model as it is"),
        (3, "iteration 3/24  reward 0.25, 1.5 min left", ""),
        (
            3,
            "iteration 3/24  reward 1\nin iteration 4/24: learning, 1 of 9 parts",
            "Iteration 4 of 24: learning, 1 of 9 parts",
        ),
        (0, "in iteration 9/9: sampling, 1 of 2 images\n$ imgalign train x", LOADING),
    ],
)
def test_what_a_process_does_is_read_from_its_log(runs, monkeypatch, step, log, said):
    monkeypatch.setattr("imgalign.runs.status.process_alive", lambda *_, **__: True)
    write_status(runs.folder / "a", state="running", step=step)
    assert stages.doing(runs.run("a"), f"$ imgalign train recipe\n{log}\n") == said
