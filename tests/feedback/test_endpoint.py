"""A judge behind an endpoint, against a real server on the loopback interface."""

import base64
import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from judge_server import (
    Answered,
    JudgeServer,
    completion,
    failure,
    judge_server,
    prefers_shorter,
    texts_in,
)
from PIL import Image

from imgalign.config import checked
from imgalign.errors import ConfigError, InputError, JudgeError
from imgalign.feedback.endpoint import EndpointConfig, EndpointJudge
from imgalign.feedback.judge import Judge
from imgalign.feedback.question import Question
from imgalign.images import png

QUICK: dict[str, Any] = {"timeout": 5.0, "retries": 2, "first_wait": 0.01, "parallel": 2}
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server() as running:
        yield running


def judge_of(server: JudgeServer, *, key: str | None = None, **settings: Any) -> EndpointJudge:
    return EndpointJudge(server.url, "tiny", key=key, config=EndpointConfig(**(QUICK | settings)))


def question(first: str | bytes = "a", second: str | bytes = "bb") -> Question:
    return Question(prompt="a cat", principle="It is short.", first=first, second=second)


def test_the_protocol_is_that_of_openai(server: JudgeServer):
    judge = judge_of(server, key=KEY, max_tokens=77)
    assert isinstance(judge, Judge)
    assert judge.host == server.url.removeprefix("http://").removesuffix("/v1")
    (reply,) = judge.replies([question()])
    assert reply.choice == "first"
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["headers"]["Authorization"] == f"Bearer {KEY}"
    (content,) = question().parts()
    assert asked["body"] == {
        "model": "tiny",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 77,
    }


@pytest.mark.parametrize("key", [None, "", "  "])
def test_without_a_key_none_is_sent(server: JudgeServer, key: str | None):
    list(judge_of(server, key=key).replies([question()]))
    assert "Authorization" not in server.asked[0]["headers"]


def test_replies_come_in_the_order_of_the_questions_however_long_each_takes(server: JudgeServer):
    def slow_at_first(body: dict[str, Any]) -> Answered:
        time.sleep(0.3 if len(texts_in(body)[0]) % 3 == 0 else 0.1)
        return prefers_shorter(body)

    server.rule = slow_at_first
    questions = [question("a" * i, "b" * 6) for i in range(1, 13)]
    replies = list(judge_of(server, parallel=3).replies(questions))
    assert [each.choice for each in replies] == ["first"] * 6 + ["second"] * 6
    assert server.most_at_once == 3


def test_images_are_sent_as_png_data_reduced_to_the_size_asked_for(server: JudgeServer):
    server.rule = lambda body: completion("B")
    pixels = [Image.new("RGB", (300, 150), "red"), Image.new("RGB", (20, 40), "blue")]
    (reply,) = judge_of(server, image_size=100).replies([question(*map(png, pixels))])
    assert reply.choice == "second"
    content = server.asked[0]["body"]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "text", "image_url", "text"]
    sent = []
    for part in content:
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(",")
            assert head == "data:image/png;base64"
            sent.append(Image.open(io.BytesIO(base64.b64decode(data))))
    assert [(image.size, image.getpixel((0, 0))) for image in sent] == [
        ((100, 50), (255, 0, 0)),
        ((20, 40), (0, 0, 255)),
    ]


@pytest.mark.parametrize("status", [429, 408, 500, 502, 503])
def test_what_passes_is_asked_again(server: JudgeServer, status: int):
    def at_first(body: dict[str, Any]) -> Answered:
        return failure(status) if len(server.asked) < 3 else prefers_shorter(body)

    server.rule = at_first
    (reply,) = judge_of(server).replies([question()])
    assert reply.choice == "first"
    assert len(server.asked) == 3


def test_a_server_that_asks_to_wait_is_waited_for(server: JudgeServer):
    moments: list[float] = []

    def busy(body: dict[str, Any]) -> Answered:
        moments.append(time.monotonic())
        return failure(429, Retry_After="0.4") if len(moments) == 1 else prefers_shorter(body)

    server.rule = busy
    list(judge_of(server).replies([question()]))
    assert moments[1] - moments[0] >= 0.4


def test_a_server_that_stays_busy_is_given_up_with_its_own_words(server: JudgeServer):
    server.rule = lambda body: failure(429, "You exceeded\nyour quota")
    with pytest.raises(JudgeError, match="no reply in 3 attempts") as raised:
        list(judge_of(server).replies([question()]))
    assert "429: You exceeded your quota" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(server.asked) == 3


def test_a_judge_that_does_not_answer_in_time_is_asked_again_and_given_up(server: JudgeServer):
    done = threading.Event()

    def silent(body: dict[str, Any]) -> Answered:
        done.wait(10)
        return completion("A")

    server.rule = silent
    try:
        with pytest.raises(JudgeError, match=r"3 attempts \(nothing within 0.5 s\)"):
            list(judge_of(server, timeout=0.5).replies([question()]))
    finally:
        done.set()
    assert len(server.asked) == 3


def test_where_no_server_is_that_is_said_at_once(server: JudgeServer):
    judge = EndpointJudge("http://127.0.0.1:9", "tiny", config=EndpointConfig(first_wait=30))
    started = time.monotonic()
    with pytest.raises(JudgeError, match=r"http://127.0.0.1:9: cannot be reached .*running"):
        list(judge.replies([question()]))
    assert time.monotonic() - started < 5


def test_a_server_that_goes_away_is_waited_for():
    with judge_server() as running:
        judge = judge_of(running)
        replies = judge.replies(question() for _ in range(9))
        assert next(replies).choice == "first"
    with pytest.raises(JudgeError, match="no reply in 3 attempts"):
        list(replies)


@pytest.mark.parametrize(
    ("answered", "key", "why"),
    [
        (failure(401, "who are you"), None, "wants a key; set IMGALIGN_JUDGE_KEY"),
        (failure(401), KEY, "refuses the key in IMGALIGN_JUDGE_KEY"),
        (failure(403), KEY, "refuses the key"),
        (failure(404, "no such model"), None, "no model 'tiny', .*404: no such model"),
        (failure(302, Location="http://127.0.0.1:9/"), KEY, "got status 302"),
        ((200, {}, b"<html>hello</html>"), None, "expected a chat completion, got '<html>hello"),
        ((200, {}, b'{"choices": []}'), None, "expected a chat completion"),
        ((200, {}, b'{"choices": [{"message": "A"}]}'), None, "expected a chat completion"),
        ((200, {}, b"[" * 100_000), None, "expected a chat completion"),
        ((200, {}, b"\xff\xfe"), None, "expected a chat completion"),
        ((200, {}, b"x" * 3_000_000), None, "over 1048576 bytes"),
        ((200, {"Content-Encoding": "gzip"}, b"no gzip"), None, "no reply in 3 attempts"),
        *(
            ((code, {"Content-Type": f"text/html; charset={charset}"}, b"garbage\xff"), None, why)
            for charset in ("base64", "rot13", "undefined", "utf-16", "zip")
            for code, why in ((200, "got 'garbage"), (404, "404: garbage"))
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_will_not_pass_ends_in_one_clear_line(
    server: JudgeServer, answered: Answered, key: str | None, why: str
):
    server.rule = lambda body: answered
    with pytest.raises(JudgeError, match=why) as raised:
        list(judge_of(server, key=key).replies([question()]))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
    assert len(server.asked) == (3 if "attempts" in why else 1)


def test_a_question_that_is_too_long_is_a_problem_of_this_question(server: JudgeServer):
    message = "This model's maximum context length is 10 tokens."

    def limited(body: dict[str, Any]) -> Answered:
        return failure(400, message) if "long" in texts_in(body)[0] else prefers_shorter(body)

    server.rule = limited
    one, two, three = judge_of(server).replies([question(), question("long"), question("ccc")])
    assert (one.choice, two.choice, three.choice) == ("first", None, "second")
    assert two.problem == f"the server answers 400: {message}"


@pytest.mark.parametrize("content", [b"<html>busy</html>", b'{"choices": []}', b"\xff"])
def test_a_bad_reply_after_good_ones_is_no_choice_and_nothing_more(
    server: JudgeServer, content: bytes
):
    def sometimes(body: dict[str, Any]) -> Answered:
        return (200, {}, content) if "bad" in texts_in(body)[0] else prefers_shorter(body)

    server.rule = sometimes
    asked = [question(), question("bad"), question("ccc")]
    one, two, three = judge_of(server, parallel=1).replies(asked)
    assert (one.choice, two.choice, three.choice) == ("first", None, "second")
    assert two.said.startswith("no chat completion: ")
    assert not two.problem  # so the other questions of its item count


def test_a_reply_in_parts_is_the_text_of_them(server: JudgeServer):
    parts = [{"type": "thinking", "thinking": "B"}, {"type": "text", "text": "A"}]
    server.rule = lambda body: completion(parts)
    (reply,) = judge_of(server).replies([question()])
    assert reply.choice == "first"


@pytest.mark.parametrize(
    ("text", "finish", "said"),
    [
        ("Both are nice.", "stop", "Both are nice."),
        (None, "length", " (cut off after 9 tokens)"),
        ("<think>Let me", "length", "<think>Let me (cut off after 9 tokens)"),
    ],
)
def test_a_reply_that_is_no_letter_is_no_choice(
    server: JudgeServer, text: str | None, finish: str, said: str
):
    server.rule = lambda body: completion(text, finish_reason=finish)
    (reply,) = judge_of(server, max_tokens=9).replies([question()])
    assert (reply.choice, reply.problem, reply.said) == (None, "", said)


def test_options_that_a_server_does_not_support_are_left_out(server: JudgeServer):
    def strict(body: dict[str, Any]) -> Answered:
        if "max_tokens" in body:
            said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return failure(400, said)
        if "temperature" in body:
            return failure(400, "Unsupported value: 'temperature' does not support 0")
        assert body["max_completion_tokens"] == 1024
        return prefers_shorter(body)

    server.rule = strict
    questions = [question("a" * i, "b" * 4) for i in range(1, 9)]
    replies = list(judge_of(server, parallel=4).replies(questions))
    assert [each.choice for each in replies] == ["first"] * 4 + ["second"] * 4


def test_a_key_is_in_no_message_and_no_log(server: JudgeServer, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    for status in (401, 400, 500, 404, 418):
        answered = failure(status, f"Incorrect API key: {KEY}")
        server.rule = partial(lambda answered, body: answered, answered)
        judge = judge_of(server, key=KEY)
        try:
            said = str(list(judge.replies([question()])))
        except JudgeError as error:
            said = str(error)
        assert "Incorrect API key: ***" in said
        assert KEY not in said
        assert KEY not in repr(judge)
    assert KEY not in caplog.text


def test_a_key_that_no_header_can_hold_is_refused_without_being_told():
    for key in ("sk-ключ", "sk-a\nb", "sk-\x00"):
        with pytest.raises(InputError, match="IMGALIGN_JUDGE_KEY: expected printable") as raised:
            EndpointJudge("http://127.0.0.1:9", "tiny", key=key)
        assert key not in str(raised.value)


def test_a_key_in_the_clear_is_warned_of_unless_it_stays_on_this_machine(
    caplog: pytest.LogCaptureFixture,
):
    for url, warned in [
        ("http://127.0.0.1:9/v1", 0),
        ("http://localhost/v1", 0),
        ("https://judge.example/v1", 0),
        ("http://judge.example/v1", 1),
    ]:
        caplog.clear()
        EndpointJudge(url, "tiny", key=KEY)
        assert len(caplog.messages) == warned, url
        EndpointJudge(url, "tiny")
        assert len(caplog.messages) == warned, url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "expected one such as"),
        ("127.0.0.1:8080/v1", "expected one such as"),
        ("ftp://127.0.0.1/v1", "expected one such as"),
        ("http://", "expected one such as"),
        ("http://[::1", "expected one such as"),
        ("http://ann:secret@127.0.0.1/v1", "expected no name, password or query"),
        ("http://127.0.0.1/v1?key=secret", "expected no name, password or query"),
        ("http://127.0.0.1/v1/chat/completions", "leave /chat/completions out"),
    ],
)
def test_another_kind_of_url_is_refused_without_telling_secrets(url: str, why: str):
    with pytest.raises(InputError, match=why) as raised:
        EndpointJudge(url, "tiny")
    assert "secret" not in str(raised.value)


def test_a_slash_at_the_end_of_the_url_does_not_matter(server: JudgeServer):
    server_url = f"{server.url}/"
    list(EndpointJudge(server_url, "tiny").replies([question()]))
    assert server.asked[0]["path"] == "/v1/chat/completions"


@pytest.mark.parametrize(
    "settings", [{"timeout": 0}, {"retries": -1}, {"parallel": 0}, {"image_size": 8}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        checked(EndpointConfig, **settings)


def test_closing_the_replies_stops_what_is_under_way(server: JudgeServer):
    done = threading.Event()

    def hangs(body: dict[str, Any]) -> Answered:
        if texts_in(body)[0] != "1":
            done.wait(20)
        return prefers_shorter(body)

    server.rule = hangs
    questions = (question(str(number)) for number in range(1, 100))
    started = time.monotonic()
    with closing(judge_of(server, timeout=20).replies(questions)) as replies:
        next(replies)
    assert time.monotonic() - started < 5
    assert len(server.asked) <= 5
    done.set()


def test_no_more_questions_are_taken_than_are_under_way(server: JudgeServer):
    taken: list[int] = []

    def counted() -> Iterator[Question]:
        for number in range(50):
            taken.append(number)
            yield question()

    replies = judge_of(server, parallel=2).replies(counted())
    assert taken == []
    next(replies)
    assert len(taken) == 4
    assert len(list(replies)) == 49
