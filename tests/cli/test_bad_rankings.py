"""Rankings and pairs that nothing can be learned from end in one clear line, before a model is
loaded, and leave no run behind; what can be used of the rest is used."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from image_folders import image, pair_folder
from provenances import provenance
from submissions import judge, on_screen

from imgalign.cli.main import main
from imgalign.images import png
from imgalign.preferences.store import Store

Refused: TypeAlias = Callable[..., str]
Trained: TypeAlias = Callable[..., tuple[int, list[str]]]
STORE = "data.database=imgalign.db"
FOLDER = "data={from: folder, folder: pairs}"
TINY = (
    *("policy={num_inference_steps: 2, batch_size: 4, lora_rank: 2, dtype: float32}",),
    *("run.iterations=1", "run.measure_every=1", "run.samples.num_prompts=1"),
)


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch) -> Refused:
    """Trains what must be refused without a model or a run, and gives the line that says why."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    monkeypatch.setattr("imgalign.train.run.load_policy", pytest.fail)

    def train(*settings: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(["train", "storybook_dpo", *settings, "--out", "run"]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        lines = capsys.readouterr().err.splitlines()
        assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True]
        return str(lines[-1].removeprefix("error: "))

    return train


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys, tiny_pipeline_folder) -> Trained:
    """Trains the tiny model for an iteration; gives the exit code and what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMGALIGN_CACHE", str(tmp_path / "cache"))
    model = f"policy.model={tiny_pipeline_folder}"

    def train(*settings: str) -> tuple[int, list[str]]:
        code = main(["train", "storybook_dpo", *TINY, model, *settings, "--out", "run"])
        return code, capsys.readouterr().err.splitlines()

    return train


def judged(path: Path, verdicts: str, **made: object) -> Path:
    """A store with a prompt and two images for each letter: order, tie, bad, skip."""
    with Store.open(path / "imgalign.db") as store:
        store.add_annotator("ann", group="cosy")
        for number in range(len(verdicts)):
            images = [
                store.add_image(png(image(2 * number + each)), provenance(**made))
                for each in range(2)
            ]
            store.add_item(f"prompt {number}", images, source="test")
        for verdict in verdicts:
            item = store.next_item("ann")
            if verdict in "ot":
                groups = ((0,), (1,)) if verdict == "o" else ((0, 1),)
                store.submit(judge(item, ranking=on_screen(store, item, groups)))
            elif verdict == "b":
                store.submit(judge(item, ranking=None, verdict="all_bad"))
            else:
                store.submit(judge(item, ranking=None, verdict="skipped", reason="broken"))
    return path / "images"


@pytest.mark.parametrize(
    ("verdicts", "settings", "says"),
    [
        (
            "bbbb",
            (),
            "the rankings, without held-out prompts: expected rankings that prefer a sample to "
            "another, got 3 that are all bad; rank some samples above others, or use "
            "algorithm.name=kto, which learns from likes and all-bad verdicts too",
        ),
        (
            "tttt",
            (),
            "the rankings, without held-out prompts: expected rankings that prefer a sample to "
            "another, got 3 that tie all their samples; rank some samples above others",
        ),
        (
            "tttt",
            ("algorithm={name: kto}",),
            "the rankings, without held-out prompts: expected likes or dislikes, got 3 rankings "
            "that tie all their samples and no other; rank some samples above others",
        ),
        (
            "tttt",
            ("algorithm={name: supervised}",),
            "the rankings, without held-out prompts: expected rankings that prefer a sample to "
            "another, got 3 that tie all their samples; rank some samples above others, or learn "
            "from all alike with algorithm.weighting.kind=equal",
        ),
        (
            "tb",
            ("data.held_out.num_prompts=0",),
            "the rankings: expected rankings that prefer a sample to another, got 1 that tie all "
            "their samples and 1 that are all bad; rank some samples above others, or use "
            "algorithm.name=kto, which learns from likes and all-bad verdicts too",
        ),
        (
            "ss",
            (),
            "the rankings: expected rankings, got 2 skipped ones and no other; rank images with "
            "imgalign ui first",
        ),
        ("", (), "the rankings: expected rankings, got none; rank images with imgalign ui first"),
        (
            "o",
            (),
            "the rankings: expected at least 4 prompts, a quarter of which is held out, got 1; "
            "add rankings of more prompts, or choose by data.held_out.num_prompts, where 0 "
            "measures nothing",
        ),
        (
            "oooo",
            ("data.held_out.num_prompts=4",),
            "the rankings: no prompt is left to train on after 4 were held out; add prompts or "
            "lower data.held_out.num_prompts",
        ),
        (
            "oooo",
            ("data.rankings_per_iteration=16",),
            "data.rankings_per_iteration: expected 1 to 3, the number of rankings whose prompts "
            "are not held out, got 16",
        ),
        (
            "oooo",
            ("data.group=warm",),
            "the rankings with data.group=warm: expected rankings, got none; there are: group cosy",
        ),
        (
            "oooo",
            ("data.annotator=Bea", "data.project=cats"),
            "the rankings with data.project=cats, data.annotator=Bea: expected rankings, got none; "
            "there are: annotator ann, project default",
        ),
    ],
)
def test_a_store_that_teaches_nothing_says_what_it_has_and_the_cure(
    refused, tmp_path, verdicts, settings, says
):
    judged(tmp_path, verdicts)
    assert refused(STORE, *settings) == says


def test_ranked_images_that_are_gone_are_counted_before_a_run_is_made(refused, tmp_path):
    originals = judged(tmp_path, "oooo")
    for path in originals.rglob("*.png"):
        path.unlink()
    line = refused(STORE)
    assert line.startswith(f"{originals}: ranked images that are missing: 8 (")
    assert line.endswith("; restore the folder, or name it by data.originals")


def test_the_noise_of_images_of_another_model_means_nothing_and_is_refused(refused, tmp_path):
    judged(tmp_path, "oooooooo")
    line = refused(STORE, "data.noise=provenance")
    assert re.sub(r"[0-9a-f]{8}\)", "ID)", line) == (
        "data.noise: provenance: expected images generated by policy.model, 'storybook', got 16 of "
        "16 images (such as ID) by 'm', from whose noise this model generates others; use "
        "data.noise=fresh, or train the model that generated them"
    )


def test_the_noise_of_images_of_another_size_is_refused(refused, tmp_path, tiny_pipeline_folder):
    model = str(tiny_pipeline_folder)
    judged(tmp_path, "oooooooo", model=model, width=16, height=8)
    line = refused(STORE, "data.noise=provenance", f"policy.model={model}/")
    assert re.sub(r"[0-9a-f]{8}\)", "ID)", line) == (
        "data.noise: provenance: expected images of 16 x 16 pixels, the size of policy.model, got "
        "16 of 16 images (such as ID) of 16 x 8, whose noise has another shape; use "
        "data.noise=fresh, or rank images of that size"
    )


def test_the_noise_of_images_of_this_very_model_is_learned_from(
    trained, tmp_path, tiny_pipeline_folder
):
    judged(tmp_path, "oooooooo", model=f"{tiny_pipeline_folder}/", width=16, height=16)
    code, said = trained(STORE, "data.noise=provenance")
    assert code == 0, said
    record = (tmp_path / "run" / "rankings.jsonl").read_text().splitlines()
    assert all(json.loads(line)["seeds"] == [0, 0] for line in record)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (Path.unlink, "1 of 8 rankings are left out"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:40]),
            "images that cannot be used: 1, with which 1 of 8 rankings are left out",
        ),
    ],
)
def test_a_ranking_with_a_bad_image_is_left_out_and_the_others_are_learned_from(
    trained, tmp_path, damage, says
):
    path = sorted(judged(tmp_path, "oooooooo").rglob("*.png"))[0]
    damage(path)
    code, said = trained(STORE)
    assert code == 0
    (line,) = [each for each in said if says in each]
    assert path.name[:12] in line


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("data={from: rankings, database: no.db}",), "no.db: no such database; check the name"),
        (("data={from: rankings, database: empty.db}",), "empty.db: an empty file; check the name"),
        (("data={from: folder}",), "data.folder: required, but not given; add data.folder=VALUE"),
        (("data={from: table}",), "data.file: required, but not given; add data.file=VALUE"),
        (("data={from: folder, folder: no}",), "no: expected a folder of images, got nothing"),
        (("data={from: folder, folder: bare}",), "bare: expected images of equal names in chosen/"),
        (("data={from: folder, folder: odd}",), "odd: no ranking can be used; unpaired: 3 (chosen"),
        (("data={from: table, file: no.jsonl}",), "no.jsonl: no such table"),
        (("data={from: table, file: t.jsonl}",), "t.jsonl: expected the columns (prompt, chosen,"),
    ],
)
def test_a_source_that_is_not_there_or_of_another_kind_is_named(refused, tmp_path, settings, says):
    (tmp_path / "empty.db").touch()
    (tmp_path / "bare").mkdir()
    pair_folder(tmp_path / "odd")
    for path in (tmp_path / "odd" / "rejected").iterdir():
        path.unlink()
    (tmp_path / "t.jsonl").write_text('{"text": "a red fox", "good": "x.png"}\n')
    assert refused(*settings).replace(f"{tmp_path}/", "").startswith(says)


def test_a_table_that_ties_everything_says_so(refused, tmp_path):
    pair_folder(tmp_path / "pairs", pairs=4)
    rows = [
        {"prompt": f"prompt {n}", "ranks": [0, 0]}
        | {"images": [f"pairs/{side}/{n}.png" for side in ("chosen", "rejected")]}
        for n in range(4)
    ]
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert refused("data={from: table, file: t.jsonl}") == (
        "t.jsonl, without held-out prompts: expected rankings that prefer a sample to another, got "
        "3 that tie all their samples; rank some samples above others"
    )


def test_files_of_a_folder_that_are_no_pair_are_said_once_and_the_rest_is_learned_from(
    trained, tmp_path
):
    pair_folder(tmp_path / "pairs", pairs=6)
    (tmp_path / "pairs" / "rejected" / "5.png").unlink()
    code, said = trained(FOLDER)
    assert code == 0
    assert said.count("pairs: 5 rankings of 10 images") == 1
    assert said.count("left out, unpaired: 1 (chosen/5.png)") == 1


def test_a_store_of_dislikes_alone_trains_with_kto_and_a_warning(trained, tmp_path):
    judged(tmp_path, "bbbb")
    code, said = trained(STORE, "algorithm={name: kto}")
    assert code == 0
    assert said[0] == (
        "all 3 judgements are dislikes: kto can only move away from them, with nothing to move "
        "towards, which no weights make up for; as in TRL they are learned from all the same; add "
        "likes, or stay near the start with a larger algorithm.beta"
    )


def test_a_prompt_that_the_model_would_not_read_to_its_end_is_an_error_unless_that_is_wanted(
    trained, tmp_path, monkeypatch
):
    pair_folder(tmp_path / "pairs", pairs=4)
    # This model reads twelve tokens: ten words between a begin and an end.
    for number, words in enumerate((10, 11, 12, 1)):
        caption = " ".join(["house"] * words)
        (tmp_path / "pairs" / "chosen" / f"{number}.txt").write_text(caption)
    with monkeypatch.context() as patch:
        patch.setattr("imgalign.train.run.load_policy", pytest.fail)
        before = sorted(tmp_path.rglob("*"))
        code, said = trained(FOLDER)
        assert sorted(tmp_path.rglob("*")) == before
    assert code == 2
    assert said[-1] == (
        f"error: prompts: '{'house ' * 10}...' has 13 tokens, and 1 more; the model reads 12: "
        "shorten or leave out such prompts, or set policy.cut_prompts=true to train without their "
        "ends"
    )
    with pytest.warns(UserWarning, match="does not see the end here: 'house( house)?'"):
        code, _ = trained(FOLDER, "policy.cut_prompts=true")
    assert code == 0
