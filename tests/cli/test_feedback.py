"""`imgalign feedback`, as a newcomer runs it, and what each mistake says."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import (
    Answered,
    JudgeServer,
    completion,
    failure,
    judge_server,
    prefers_shorter,
)
from texts import add_texts
from tiny_language import TEMPLATE, build_tokenizer, write_language_model

from imgalign.cli.main import main
from imgalign.preferences.store import Store

THREE = ("cat", "a red cat", "a red cat in the snow")
CONSTITUTION = "name: mine\nprinciples: [{text: It is short.}]\n"
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Three items of texts in the database of this folder, beside a constitution."""
    monkeypatch.chdir(tmp_path)
    for name in ("IMGALIGN_DATABASE", "IMGALIGN_JUDGE_KEY"):
        monkeypatch.delenv(name, raising=False)
    Path("mine.yaml").write_text(CONSTITUTION)
    with Store.open(Path("imgalign.db")) as store:
        for number in range(3):
            add_texts(store, [f"{text} {number}" for text in THREE], prompt=f"prompt {number}")
        yield store


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server() as running:
        yield running


def run(*options: str) -> int:
    return main(["feedback", "--constitution", "mine.yaml", "--judge", "tiny", *options])


def test_a_queue_is_judged_by_a_server_and_the_summary_says_how_well(
    store: Store, server: JudgeServer, capsys: pytest.CaptureFixture[str]
):
    assert run("--url", server.url) == 0
    printed = capsys.readouterr()
    first, who, second, third = printed.out.splitlines()
    assert who.startswith(f"judge: tiny at {server.url[7:-3]}; constitution: mine (")
    assert first.startswith("3 items are judged by 'ai tiny ")
    assert first.endswith("3 rankings, 0 without an order")
    assert second == ("consistent verdicts: 100 % of 9 (the same in both orders; no others count)")
    assert third == "first place chosen: 50 % of 18 answers (50 % without position bias)"
    assert "judging: 100 %" in printed.err
    assert len(list(store.rankings(judged_by="ai"))) == 3
    assert run("--url", server.url) == 0
    assert capsys.readouterr().out.splitlines()[0] == first
    assert len(server.asked) == 18


def test_a_local_model_judges_without_a_server(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, template in [("plain", None), ("chat", TEMPLATE)]:
        tokenizer = build_tokenizer(template=template)
        write_language_model(tmp_path / name, "llama", tokenizer, context_length=2048)
        options = ["--judge", str(tmp_path / name), "--constitution", "mine.yaml"]
        assert main(["feedback", *options]) == 0
        assert f"3 items are judged by 'ai {name} " in capsys.readouterr().out
    assert len(list(store.rankings(judged_by="ai"))) == 6


def test_the_key_comes_from_the_environment_and_goes_nowhere_but_to_the_server(
    store: Store,
    server: JudgeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    def locked(body: dict[str, Any]) -> Answered:
        sent = server.asked[-1]["headers"].get("Authorization")
        return prefers_shorter(body) if sent == f"Bearer {KEY}" else failure(401, "no key")

    server.rule = locked
    assert run("--url", server.url) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the server wants a key; set IMGALIGN_JUDGE_KEY (401: no key)" in said
    monkeypatch.setenv("IMGALIGN_JUDGE_KEY", KEY)
    assert run("--url", server.url) == 0
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in kept


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--url", "http://127.0.0.1:9/v1"], "http://127.0.0.1:9/v1: cannot be reached"),
        (["--url", "127.0.0.1:9"], "url: expected one such as http://127.0.0.1:8080/v1"),
        (["--url", "http://a:b@127.0.0.1/v1"], "url: expected no name, password or query"),
        (["--url", "http://127.0.0.1:9", "--batch-size", "2"], "--batch-size: without effect with"),
        (["--url", "http://127.0.0.1:9", "--timeout", "0"], "timeout: expected"),
        (["--timeout", "3"], "--timeout: without effect without --url"),
        ([], "model: expected 'storybook', a folder or a hub id like 'owner/name', got 'tiny'"),
        (["--constitution", "missing.yaml"], "missing.yaml: no such constitution"),
        (["--constitution", "wrong.yaml"], "wrong.yaml: principles"),
        (["--database", "sqlite:///missing.db"], "missing.db: no such database"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_said_in_one_line(
    store: Store, capsys: pytest.CaptureFixture[str], options: list[str], why: str
):
    Path("wrong.yaml").write_text("name: mine\nprinciples: []\n")
    assert run(*options) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
    assert line.startswith("error: ")
    assert why in line
    assert list(store.rankings(judged_by="all")) == []


def test_a_local_model_that_reads_too_little_says_how_much(
    store: Store, capsys: pytest.CaptureFixture[str]
):
    assert run("--judge", "storybook") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: judge 'storybook': 3 items in a row: the question has ")
    assert line.endswith(
        "tokens, and the judge reads 128 with its reply; use a judge that follows instructions and "
        "reads the whole question; what was judged is kept"
    )
    assert list(store.rankings(judged_by="all")) == []


def test_nonsense_is_said_with_an_example_and_the_queue_stays_as_it_was(
    store: Store, server: JudgeServer, capsys: pytest.CaptureFixture[str]
):
    server.rule = lambda body: completion("Dear user,")
    assert run("--url", server.url) == 2
    assert "none of 6 replies is A or B, such as 'Dear user,'" in capsys.readouterr().err
    server.rule = prefers_shorter
    assert run("--url", server.url) == 0


def hears_interrupts() -> None:
    """What a shell runs in the background ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_ends_at_once_and_the_next_goes_on(
    store: Store, server: JudgeServer, how: signal.Signals
):
    def ever_slower(body: dict[str, Any]) -> Answered:
        time.sleep(0.01 if len(server.asked) <= 10 else 30)
        return prefers_shorter(body)

    server.rule = ever_slower
    command = [sys.executable, "-m", "imgalign", "feedback", "--constitution", "mine.yaml"]
    command += ["--judge", "tiny", "--url", server.url]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=hears_interrupts,
    )
    try:
        deadline = time.monotonic() + 100
        while not list(store.rankings(judged_by="ai")) or len(server.asked) <= 10:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(how)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode in ({signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM}[how],)
    assert "Traceback" not in said
    assert ("stopped; what is judged is kept" in said) == (how == signal.SIGINT)
    assert len(list(store.rankings(judged_by="ai"))) == 1
    server.rule = prefers_shorter
    assert run("--url", server.url) == 0
    assert len(list(store.rankings(judged_by="ai"))) == 3
