"""`imgalign reward` on rankings of texts, of a file and of the store."""

import json
from pathlib import Path

import pytest
from red_texts import make_text_rankings, write_text_table
from tiny_language import TEMPLATE, build_tokenizer, write_language_model

from imgalign.cli.main import main
from imgalign.preferences.records import ELSEWHERE, Submission, TextProvenance, as_positions
from imgalign.preferences.store import Store

RANKINGS, TEXTS = make_text_rankings(40)
FAST = ("epochs=2", "batch_size=8", "learning_rate=0.003")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    tokenizer = build_tokenizer(template=TEMPLATE)
    return write_language_model(tmp_path_factory.mktemp("model"), "llama", tokenizer)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """The rankings as JSON lines, and one row that says nothing."""
    return write_text_table(tmp_path_factory.mktemp("tables") / "rankings.jsonl", RANKINGS, TEXTS)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> tuple[str, ...]:
    """Options that name a store with the same rankings."""
    folder = tmp_path_factory.mktemp("store")
    url = f"sqlite:///{folder}/imgalign.db"
    with Store.open(url, images=folder / "images", seed=0) as store:
        store.add_annotator("ann")
        of_item = {}
        for each in RANKINGS:
            made = TextProvenance(
                model=ELSEWHERE, prompt=each.prompt, seed=0, temperature=1.0, max_new_tokens=9
            )
            ids = [store.add_text(TEXTS[sample], made) for sample in each.sample_ids]
            of_item[store.add_item(each.prompt, ids, source="test")] = each.ranking
        while (shown := store.next_item("ann")) is not None:
            order = store.display_order(shown.item_id, "ann")
            store.submit(
                Submission(
                    key=shown.item_id,
                    item_id=shown.item_id,
                    annotator="ann",
                    ranking=as_positions(of_item[shown.item_id], order),
                )
            )
    return "--database", url, "--images", str(folder / "images")


@pytest.fixture
def train(model):
    """Runs `imgalign reward train` into a folder and gives its exit code."""

    def run(out: Path, *options: str, settings: tuple[str, ...] = ()) -> int:
        return main(
            ["reward", "train", "--out", str(out), *options, f"model={model}", *FAST, *settings]
        )

    return run


def test_a_file_and_a_store_of_the_same_rankings_give_the_same_reward(
    train, store, table, tmp_path, capsys
):
    assert train(tmp_path / "file", "--file", str(table)) == 0
    shown = capsys.readouterr()
    assert "left out, equal texts: 1 (line 41)" in shown.err
    assert "the longer text" in shown.out
    assert train(tmp_path / "store", "--samples", "texts", *store) == 0
    reports = [json.loads((tmp_path / n / "report.json").read_text()) for n in ("file", "store")]
    assert reports[0]["data_hash"] == reports[1]["data_hash"]
    assert reports[0]["num_rankings"] == reports[1]["num_rankings"]


def test_a_reward_is_evaluated_and_scores_texts(train, store, table, tmp_path, capsys):
    out = str(tmp_path / "reward")
    assert train(tmp_path / "reward", "--file", str(table)) == 0
    capsys.readouterr()
    assert main(["reward", "eval", out, "--file", str(table)]) == 0
    of_file = capsys.readouterr().out
    assert main(["reward", "eval", out, *store]) == 0
    assert capsys.readouterr().out == of_file
    texts = ["--text", "red! cat", "--text", "blue cat"]
    assert main(["reward", "score", out, *texts, "--prompt", "cat 1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    score, text, prompt = first.split("\t")
    assert (text, prompt) == ("red! cat", "cat 1")
    assert float(score) != float(second.split("\t")[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--file", "no.jsonl"], "no.jsonl: no such table"),
        (["train", "--file", "{table}", "--group", "a"], "--group: without effect with --file"),
        (["train", "--file", "{table}", "model=no/such/model"], "got 'no/such/model', which is no"),
        (["train", "--file", "{table}", "lora_rank=3"], "lora_rank: has no effect without train"),
        (["train", "--file", "{table}", "clip=storybook"], "clip: unknown key"),
        (["train", "--samples", "texts", "--database", "sqlite:///no.db"], "no.db"),
        (["score", "{model}", "--prompt", "x"], "expected either image files or --text"),
        (["score", "storybook", "--text", "a", "--prompt", "x"], "storybook scores images, got te"),
        (["eval", "storybook", "--file", "{table}"], "storybook scores images, got texts"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments, message, table, model, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    filled = [each.format(table=table, model=model) for each in arguments]
    assert main(["reward", *filled]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line


def test_a_reward_of_texts_does_not_score_images(train, table, tmp_path, capsys):
    assert train(tmp_path / "reward", "--file", str(table)) == 0
    (tmp_path / "x.png").write_bytes(b"")
    command = ["reward", "score", str(tmp_path / "reward"), str(tmp_path / "x.png")]
    assert main([*command, "--prompt", "x"]) == 2
    assert "reward scores texts, got images" in capsys.readouterr().err


def test_a_tokenizer_without_an_end_token_is_one_line_and_writes_nothing(tmp_path, table, capsys):
    folder = write_language_model(tmp_path / "model", "llama", build_tokenizer(end=False))
    out = tmp_path / "reward"
    command = ["reward", "train", "--out", str(out), "--file", str(table), f"model={folder}"]
    assert main(command) == 2
    assert "expected an end token" in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_a_reward_of_the_other_kind_of_samples_starts_no_run(
    table, model, tiny_pipeline_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    fit = ["--file", str(table), f"model={model}", *FAST, "--out", "of_texts"]
    assert main(["reward", "train", *fit]) == 0
    images, texts = f"policy.model={tiny_pipeline_folder}", f"policy.model={model}"
    for recipe, policy, rewards, message in (
        ("storybook_grpo", images, ["path=of_texts"], "of_texts scores texts, got images"),
        ("rewriter_grpo", texts, ["path=storybook"], "storybook scores images, got texts"),
        (
            *("rewriter_grpo", texts, ["path=of_texts", "held_out=storybook"]),
            "storybook scores images, got texts",
        ),
    ):
        capsys.readouterr()
        assert main(["train", recipe, policy, *(f"reward.{each}" for each in rewards)]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
