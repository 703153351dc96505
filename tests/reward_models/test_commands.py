"""`imgalign reward` on a store, with a tiny CLIP: what it prints, refuses and leaves behind."""

import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from red_store import write_red_store
from sqlalchemy import select

import reward_models
from imgalign.cli.main import main
from imgalign.errors import StoreError
from imgalign.files import lock_name
from imgalign.images import png, to_image
from imgalign.preferences.queue_order import set_queue_order
from imgalign.preferences.schema import items
from imgalign.preferences.store import Store
from reward_models import report
from reward_models.clip import ClipReward
from reward_models.informative import is_held_out

UNFROZEN = "unfreeze_image_blocks=2", "tower_learning_rate=0.003", "tower_epochs=2"


@pytest.fixture(scope="module", autouse=True)
def unsynced():
    """A hundred flushes to a busy disk take minutes, and no power cut is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def where(tmp_path_factory, unsynced):
    """Options that name a store in which somebody who likes red ranked everything."""
    return write_red_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def train(where, clip_folder):
    """Runs `imgalign reward train` into a folder and gives its exit code."""

    def run(out: Path, *settings: str, clip: Path = clip_folder) -> int:
        few = (f"clip={clip}", "epochs=3", *settings)
        return main(["reward", "train", "--out", str(out), *where, *few])

    return run


@pytest.fixture
def evaluated(where, capsys):
    """Runs `imgalign reward eval` and gives the lines it prints."""

    def run(reward: Path) -> list[str]:
        capsys.readouterr()
        assert main(["reward", "eval", str(reward), *where]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_evaluating_a_reward_prints_zero_shot_clip_beside_it(train, evaluated, tmp_path):
    assert train(tmp_path / "reward") == 0
    lines = evaluated(tmp_path / "reward")
    fit = json.loads((tmp_path / "reward" / "report.json").read_text())
    share = f"{100 * fit['test']['baseline']['micro']:.1f} %"
    assert [line for line in lines if line.startswith(f"  {'zero-shot CLIP':<32} {share}, so ")]
    beside = (
        "held-out pair accuracy",
        "  chance",
        "  annotators' agreement (ceiling)",
        "calibration error",
    )
    assert all(any(line.startswith(name) for line in lines) for name in beside)


def test_the_report_says_which_rankings_were_learned_from(train, tmp_path):
    for options, said in (
        ((), {"project": None, "group": None}),
        (("--project", "default"), {"project": "default", "group": None}),
    ):
        out = tmp_path / f"reward-{len(options)}"
        assert train(out, *options) == 0
        assert json.loads((out / "report.json").read_text())["learned_from"] == said


def test_zero_shot_clip_is_the_clip_before_its_blocks_were_trained(train, evaluated, tmp_path):
    unfrozen = *UNFROZEN, "learning_rate=1e-5"
    assert train(tmp_path / "reward", *unfrozen) == 0
    fit = json.loads((tmp_path / "reward" / "report.json").read_text())
    assert fit["seeds"][0]["unfrozen_helped"]
    share = f"{100 * fit['test']['baseline']['micro']:.1f} %"
    assert any(
        f"{'zero-shot CLIP':<32} {share}, so" in line for line in evaluated(tmp_path / "reward")
    )


def test_a_starting_clip_that_is_gone_is_said_in_one_line(train, evaluated, tmp_path, clip_folder):
    clip = tmp_path / "clip"
    clip.symlink_to(clip_folder)
    assert train(tmp_path / "reward", *UNFROZEN, clip=clip) == 0
    clip.unlink()
    (line,) = [line for line in evaluated(tmp_path / "reward") if "zero-shot CLIP" in line]
    assert line.startswith(f"  {'zero-shot CLIP':<32} unknown: {clip}: expected a folder with")


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("notes.txt", "notes.txt is a file"),
        ("notes.txt/reward", "notes.txt is a file"),
        ("thesis", "thesis: holds something else than a reward model"),
    ],
)
def test_a_place_that_cannot_hold_a_reward_is_refused_before_the_fit(
    train, tmp_path, capsys, out, message
):
    (tmp_path / "thesis").mkdir()
    for name in ("notes.txt", "thesis/chapter.txt"):
        (tmp_path / name).write_text("precious")
    # A CLIP that is not there: reading it comes first in a fit.
    assert train(tmp_path / out, clip=tmp_path / "no-clip") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_device_that_is_not_there_is_one_line(train, tmp_path, capsys):
    assert train(tmp_path / "reward", "device=cuda:99") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: device: cuda:99 is not there")
    assert train(tmp_path / "reward", "device=auto") == 0


def test_a_disk_that_fills_up_while_the_report_is_written_leaves_the_earlier_reward(
    train, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "reward"
    assert train(out) == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(report, "draw_reliability", full)
    capsys.readouterr()
    assert train(out, "seeds=[1]") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no space left while saving the reward model reward" in line
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["reward"]


def test_two_fits_into_one_folder_are_one_fit_and_one_line(train, tmp_path, capsys):
    out = tmp_path / "reward"
    with lock_name(out):
        capsys.readouterr()
        # A CLIP that is not there: reading it comes first in a fit.
        assert train(out, clip=tmp_path / "no-clip") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {out}: another process is writing this")
    assert train(out) == 0


def test_a_folder_that_cannot_be_written_is_said_before_the_fit(train, tmp_path, capsys):
    for out in (Path("/proc/reward"), tmp_path / ("x" * 300)):
        capsys.readouterr()
        assert train(out, clip=tmp_path / "no-clip") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "cannot be written" in line


def test_notes_beside_a_reward_are_not_removed_with_it(train, tmp_path, capsys):
    out = tmp_path / "reward"
    assert train(out) == 0
    (out / "notes.txt").write_text("precious")
    capsys.readouterr()
    assert train(out, clip=tmp_path / "no-clip") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds notes.txt beside a reward model" in line
    assert (out / "notes.txt").read_text() == "precious"


def test_a_kill_at_any_move_of_a_second_fit_leaves_a_whole_reward(train, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    out = tmp_path / "reward"
    assert train(out) == 0
    before = (out / "model.safetensors").read_bytes()
    rename = Path.rename
    for survived in range(3):
        moves = iter(range(survived))

        def killed(path, target, moves=moves):
            if next(moves, None) is None:
                raise Killed
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            # A kill runs no cleaning up.
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            with suppress(Killed):
                train(out, "seeds=[1]")
        reward_models.load(out)
    assert train(out) == 0
    assert (out / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["reward"]


def test_a_lost_file_among_many_is_named_and_counted_by_the_command(tmp_path, capsys, clip_folder):
    (tmp_path / "good.png").write_bytes(png(to_image(torch.rand(3, 16, 16))))
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:90])
    names = [str(tmp_path / name) for name in ("cut.png", "good.png")]
    capsys.readouterr()
    assert main(["reward", "score", str(clip_folder), *names, "--prompt", "a red fox"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    first, last = shown.err.splitlines()
    assert first.startswith(f"skipped: {names[0]}: damaged image")
    assert last == "1 of 2 images cannot be read"


def test_a_damaged_image_of_the_store_is_left_out_of_a_fit_and_an_evaluation(
    where, train, tmp_path, capsys, caplog
):
    damaged = next(Path(where[3]).glob("*/*.png"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-20])
    try:
        assert train(tmp_path / "reward") == 0
        assert "1 with a sample that cannot be read" in capsys.readouterr().out
        assert damaged.name in caplog.text
        assert main(["reward", "eval", str(tmp_path / "reward"), *where]) == 0
    finally:
        damaged.write_bytes(whole)


def test_a_fit_says_what_tells_most_where_a_lead_ranks_that_first(
    tmp_path_factory, clip_folder, capsys
):
    folder = tmp_path_factory.mktemp("informative")
    options = write_red_store(folder)
    with Store.open(options[1], images=folder / "images") as store:
        images = [each.sample_ids[:2] for each in store.rankings()]
        for number, own in enumerate(images):
            store.add_item(f"a red fox {number}", own, source="open")
            store.add_item(f"a red fox {number}", own, source="other", project="cats")
        set_queue_order(store.database, "default", "informative")
    out = str(tmp_path_factory.mktemp("fits") / "reward")
    settings = (f"clip={clip_folder}", "epochs=3")
    assert main(["reward", "train", "--out", out, *options, *settings]) == 0
    said = capsys.readouterr().out
    with Store.open(options[1], images=folder / "images") as store, store.database.read() as all_:
        found = all_.execute(select(items.c.project, items.c.prompt, items.c.priority)).all()
    held_out = ClipReward.from_pretrained(Path(out)).held_out
    free = {f"a red fox {n}" for n in range(30) if not is_held_out(f"a red fox {n}", held_out)}
    assert {prompt for _, prompt, value in found if value is not None} == free
    assert {project for project, _, value in found if value is not None} == {"default"}
    assert all(value > 0 for *_, value in found if value is not None)
    is_open = (items.c.project == "default") & (items.c.given < items.c.overlap)
    with Store.open(options[1], images=folder / "images") as store, store.database.read() as all_:
        still_open = len(all_.execute(select(items.c.item_id).where(is_open)).all())
    told = f"{len(free)} of {still_open} open sets valued"
    assert f"project 'default': what tells most is ranked next, {told}" in said


@pytest.mark.parametrize(
    ("error", "said", "is_logged"),
    [
        (StoreError("rankings.db: locked"), "rankings.db: locked", False),
        (RuntimeError("out of\nmemory"), "RuntimeError: out of memory", True),
        (AssertionError(), "AssertionError", True),
    ],
)
def test_a_fit_is_kept_whatever_goes_wrong_in_valuing_what_is_ranked_next(
    train, where, tmp_path, monkeypatch, capsys, caplog, error, said, is_logged
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("reward_models.informative.prioritise", fail)
    reward = tmp_path / "reward"
    assert train(reward) == 0
    told = capsys.readouterr()
    assert f"written to {reward}" in told.out
    (line,) = (each for each in told.err.splitlines() if each.startswith("what is ranked next"))
    assert line.startswith(f"what is ranked next stays as it was: {said}; the reward is whole")
    assert ("Traceback" in caplog.text) == is_logged
    assert main(["reward", "eval", str(reward), *where]) == 0
