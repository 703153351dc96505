"""Asking a judge about a queue: what is written, what is left open, and what stopping costs."""

import io
from collections.abc import Callable, Iterator
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
    texts_in,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from provenances import provenance
from submissions import judge as ranked_by
from submissions import on_screen
from texts import add_texts

from imgalign.errors import InputError, JudgeError
from imgalign.feedback.asking import ask_about_queue
from imgalign.feedback.constitution import Constitution, Principle
from imgalign.feedback.endpoint import EndpointConfig, EndpointJudge
from imgalign.feedback.question import QUESTION_HASH
from imgalign.feedback.summary import summary_of
from imgalign.preferences.judges import judges
from imgalign.preferences.store import Store

SHORT = Constitution(name="short", principles=(Principle(text="It is short."),))
THREE = ("cat", "a red cat", "a red cat in the snow")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "imgalign.db") as store:
        store.add_annotator("ann")
        yield store


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server() as running:
        yield running


def judge_of(server: JudgeServer, **settings: Any) -> EndpointJudge:
    usual: dict[str, Any] = {"retries": 0, "first_wait": 0.01, "parallel": 2, "timeout": 5.0}
    return EndpointJudge(server.url, "tiny", config=EndpointConfig(**(usual | settings)))


def queue(store: Store, num: int, texts: tuple[str, ...] = THREE) -> None:
    for number in range(num):
        add_texts(store, [f"{text} {number}" for text in texts], prompt=f"prompt {number}")


def always(letter: str) -> Callable[[dict[str, Any]], Answered]:
    return lambda body: completion(letter)


def test_every_item_gets_the_ranking_that_the_judge_prefers(store: Store, server: JudgeServer):
    queue(store, 3)
    shares: list[float] = []
    outcome = ask_about_queue(store, judge_of(server), SHORT, on_progress=shares.append)
    assert outcome.num_judged == 3
    assert shares == [1 / 3, 2 / 3, 1.0]
    found = list(store.rankings(judged_by="ai"))
    assert [each.ranking for each in found] == [((0,), (1,), (2,))] * 3
    assert [each.prompt for each in found] == ["prompt 0", "prompt 1", "prompt 2"]
    assert {(each.verdict, each.group, each.samples) for each in found} == {
        ("ranked", "short", "texts")
    }
    assert list(store.rankings()) == []
    assert store.counts("ann").left == 3


def test_every_pair_is_asked_about_in_both_orders_by_each_principle(
    store: Store, server: JudgeServer
):
    queue(store, 1)
    two = Constitution(
        name="two",
        principles=(
            Principle(text="It is short."),
            Principle(text="For images.", samples="images"),
            Principle(text="It is old."),
        ),
    )
    ask_about_queue(store, judge_of(server), two)
    contents = [asked["body"]["messages"][0]["content"] for asked in server.asked]
    assert len(contents) == len(set(contents)) == 2 * 2 * 3
    assert sum("It is short." in content for content in contents) == 6
    assert not [content for content in contents if "For images." in content]
    pairs = [texts_in(asked["body"]) for asked in server.asked]
    assert {pair[::-1] for pair in pairs} == set(pairs)
    (ranking,) = store.rankings(judged_by="ai")
    assert {answer.principle for answer in ranking.answers} == {0, 2}
    assert len(ranking.answers) == 12


def test_the_provenance_names_model_host_and_constitution_and_no_key(
    store: Store, server: JudgeServer
):
    queue(store, 1)
    judge = EndpointJudge(server.url, "tiny", key="sk-secret", config=EndpointConfig())
    outcome = ask_about_queue(store, judge, SHORT)
    (known,) = judges(store).values()
    lines = summary_of(store, outcome.annotator, project="default").lines()
    assert lines[1] == (
        f"judge: tiny at {known.host}; constitution: short ({known.constitution_hash[:8]})"
    )
    assert (known.model, known.host) == ("tiny", server.url[len("http://") : -len("/v1")])
    assert (known.constitution_name, known.constitution) == ("short", SHORT.canonical)
    assert (known.question_hash, known.image_size) == (QUESTION_HASH, 512)
    assert store.annotator(outcome.annotator).judge_id == known.judge_id
    assert b"sk-secret" not in Path(store.database.name).read_bytes()


def test_a_judge_that_always_says_the_first_gives_no_ranking_and_is_shown_up(
    store: Store, server: JudgeServer
):
    queue(store, 2)
    server.rule = always("A")
    outcome = ask_about_queue(store, judge_of(server), SHORT)
    found = list(store.rankings(judged_by="ai"))
    assert [each.verdict for each in found] == ["skipped"] * 2
    assert found[0].reason == "no order: 0 of 3 verdicts are the same in both orders"
    lines = summary_of(store, outcome.annotator, project="default").lines()
    assert lines[0].endswith("0 rankings, 2 without an order")
    assert lines[2].startswith("consistent verdicts: 0 % of 6 ")
    assert lines[3].startswith("first place chosen: 100 % of 12 answers")
    assert ask_about_queue(store, judge_of(server), SHORT).num_judged == 0


def test_principles_count_by_their_weight(store: Store, server: JudgeServer):
    queue(store, 1, ("cat", "a red cat"))

    def by_principle(body: dict[str, Any]) -> Answered:
        one, other = texts_in(body)
        wants_long = "It is long." in body["messages"][0]["content"]
        return completion("A" if (len(one) > len(other)) == wants_long else "B")

    server.rule = by_principle
    for weight, expected in [(1.0, None), (2.0, ((1,), (0,))), (0.5, ((0,), (1,)))]:
        both = Constitution(
            name=f"weight {weight}",
            principles=(
                Principle(text="It is short."),
                Principle(text="It is long.", weight=weight),
            ),
        )
        ask_about_queue(store, judge_of(server), both)
        assert list(store.rankings(judged_by="ai"))[-1].ranking == expected


def test_a_call_that_is_stopped_goes_on_where_it_was(store: Store, server: JudgeServer):
    queue(store, 5)

    class StopError(Exception):
        pass

    def stop_at(share: float) -> None:
        if share >= 0.4:
            raise StopError

    with pytest.raises(StopError):
        ask_about_queue(store, judge_of(server), SHORT, on_progress=stop_at)
    assert len(list(store.rankings(judged_by="ai"))) == 2
    num_before = len(server.asked)
    outcome = ask_about_queue(store, judge_of(server), SHORT)
    assert outcome.num_judged == 3
    assert len(server.asked) - num_before == 3 * 6
    found = list(store.rankings(judged_by="ai"))
    assert sorted(each.prompt for each in found) == [f"prompt {number}" for number in range(5)]
    assert summary_of(store, outcome.annotator, project="default").num_ranked == 5


def test_a_server_that_fails_in_between_costs_nothing_that_was_judged(
    store: Store, server: JudgeServer
):
    queue(store, 4)
    server.rule = lambda body: (
        failure(500, "out of memory") if len(server.asked) > 13 else prefers_shorter(body)
    )
    with pytest.raises(JudgeError, match=r"no reply in 1 attempts .500: out of memory"):
        ask_about_queue(store, judge_of(server), SHORT)
    assert len(list(store.rankings(judged_by="ai"))) == 2
    server.rule = prefers_shorter
    assert ask_about_queue(store, judge_of(server), SHORT).num_judged == 2


def test_a_limit_is_kept_and_the_next_call_takes_the_next(store: Store, server: JudgeServer):
    queue(store, 3)
    assert ask_about_queue(store, judge_of(server), SHORT, limit=2).num_judged == 2
    assert len(server.asked) == 2 * 6
    assert ask_about_queue(store, judge_of(server), SHORT, limit=2).num_judged == 1


def test_another_judge_or_constitution_judges_the_same_items_anew(
    store: Store, server: JudgeServer
):
    queue(store, 1)
    ask_about_queue(store, judge_of(server), SHORT)
    ask_about_queue(store, judge_of(server), SHORT.model_copy(update={"name": "other"}))
    assert ask_about_queue(store, judge_of(server), SHORT).num_judged == 0
    assert {each.group for each in store.rankings(judged_by="ai")} == {"short", "other"}


def test_only_the_project_that_was_asked_for_is_judged(store: Store, server: JudgeServer):
    add_texts(store, THREE, project="one")
    add_texts(store, THREE, project="two")
    ask_about_queue(store, judge_of(server), SHORT, project="two")
    assert [each.project for each in store.rankings(judged_by="ai")] == ["two"]


def test_an_item_that_is_too_long_for_the_judge_is_left_open_and_asked_again(
    store: Store, server: JudgeServer, caplog: pytest.LogCaptureFixture
):
    queue(store, 1)
    add_texts(store, [f"{'long ' * 9}{text}" for text in THREE], prompt="long")
    queue(store, 2)

    def limited(body: dict[str, Any]) -> Answered:
        is_long = "long" in body["messages"][0]["content"]
        return failure(400, "maximum context length") if is_long else prefers_shorter(body)

    server.rule = limited
    outcome = ask_about_queue(store, judge_of(server), SHORT)
    assert outcome.num_judged == 2
    reason = "the server answers 400: maximum context length"
    assert outcome.left_open == {reason: 1}
    assert len(caplog.messages) == 1
    lines = summary_of(
        store, outcome.annotator, project="default", left_open=outcome.left_open
    ).lines()
    assert lines[-1] == f"left open: 1 items, {reason}"
    server.rule = prefers_shorter
    assert ask_about_queue(store, judge_of(server), SHORT).num_judged == 1


def test_items_that_fail_now_and_then_do_not_stop_the_others(store: Store, server: JudgeServer):
    queue(store, 8)
    server.rule = lambda body: (
        failure(413) if int(texts_in(body)[0][-1]) % 2 else prefers_shorter(body)
    )
    outcome = ask_about_queue(store, judge_of(server), SHORT)
    assert (outcome.num_judged, outcome.left_open.total()) == (4, 4)


def test_a_judge_that_answers_nonsense_is_stopped_and_its_items_stay_open(
    store: Store, server: JudgeServer
):
    queue(store, 9)
    server.rule = always("I like both.")
    with pytest.raises(
        JudgeError, match=r"3 items in a row: none of 6 replies is A or B, such as 'I like both.'"
    ):
        ask_about_queue(store, judge_of(server), SHORT)
    assert list(store.rankings(judged_by="ai")) == []
    assert len(server.asked) < 4 * 6
    server.rule = prefers_shorter
    assert ask_about_queue(store, judge_of(server), SHORT).num_judged == 9


def test_one_reply_that_cannot_be_read_costs_one_verdict(store: Store, server: JudgeServer):
    queue(store, 1)

    def stumbles(body: dict[str, Any]) -> Answered:
        texts = texts_in(body)
        return completion("hm") if texts == ("cat 0", "a red cat 0") else prefers_shorter(body)

    server.rule = stumbles
    outcome = ask_about_queue(store, judge_of(server), SHORT)
    (ranking,) = store.rankings(judged_by="ai")
    assert ranking.ranking == ((0, 1), (2,))
    lines = summary_of(store, outcome.annotator, project="default").lines()
    assert "answers that say neither: 17 % of 6" in lines


def test_where_no_item_can_be_judged_that_is_an_error_with_the_reason(
    store: Store, server: JudgeServer
):
    queue(store, 2)
    only_images = Constitution(name="x", principles=(Principle(text="Nice.", samples="images"),))
    with pytest.raises(JudgeError, match=r"judged; 2 items: .* no principle for texts"):
        ask_about_queue(store, judge_of(server), only_images)
    assert server.asked == []


def test_a_project_without_items_is_refused_and_leaves_no_judge(store: Store, server: JudgeServer):
    with pytest.raises(InputError, match=r"'default': nothing is queued .* none, queue some with"):
        ask_about_queue(store, judge_of(server), SHORT)
    for project in ("two", "one"):
        add_texts(store, THREE, project=project)
    with pytest.raises(InputError, match=r"'oen': nothing is queued there; .* one, two$"):
        ask_about_queue(store, judge_of(server), SHORT, project="oen")
    assert judges(store) == {}


def test_images_are_judged_without_what_is_written_in_them(store: Store, server: JudgeServer):
    ids = []
    for number, colour in enumerate(("red", "blue")):
        info = PngInfo()
        info.add_text("parameters", "made by a model with a name")
        out = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(out, "PNG", pnginfo=info)
        ids.append(store.add_image(out.getvalue(), provenance(seed=number)))
    store.add_item("a cat", ids, source="test")
    seen: list[str] = []

    def likes_what_came_first(body: dict[str, Any]) -> Answered:
        urls = [
            part["image_url"]["url"]
            for part in body["messages"][0]["content"]
            if part["type"] == "image_url"
        ]
        seen.extend(urls)
        return completion("A" if urls[0] == seen[0] else "B")

    server.rule = likes_what_came_first
    ask_about_queue(store, judge_of(server, parallel=1), SHORT)
    (ranking,) = store.rankings(judged_by="ai")
    assert ranking.samples == "images"
    assert len(ranking.ranking) == 2
    assert len(set(seen)) == 2
    assert not [url for url in seen if "bWFkZSBieS" in url]  # "made by" in base64


def test_the_summary_compares_the_judge_with_people(store: Store, server: JudgeServer):
    for number in range(2):
        texts = [f"{text} {number}" for text in THREE]
        add_texts(store, texts, prompt=f"prompt {number}", overlap=2)
    store.add_annotator("bob")
    for _ in range(2):
        item = store.next_item("ann")
        best_first = on_screen(store, item, ((0,), (2,), (1,)))
        store.submit(ranked_by(item, "ann", ranking=best_first))
        item = store.next_item("bob")
        best_first = on_screen(store, item, ((0,), (1,), (2,)), "bob")
        store.submit(ranked_by(item, "bob", ranking=best_first))
    outcome = ask_about_queue(store, judge_of(server), SHORT)
    lines = summary_of(store, outcome.annotator, project="default").lines()
    # Three pairs of two items: the judge is of bob's opinion in all, and of ann's in two of three.
    assert any(line.startswith("agreement with people: 83 % of 12 pairs") for line in lines)
    assert any(line.startswith("agreement of people among each other: 67 % of 6") for line in lines)


def test_a_single_candidate_is_left_open_since_a_judge_compares_two(
    store: Store, server: JudgeServer
):
    queue(store, 2, texts=("a cat",))
    queue(store, 1)
    found = ask_about_queue(store, judge_of(server), SHORT)
    assert (found.num_judged, sum(found.left_open.values())) == (1, 2)
    assert list(found.left_open) == ["a single candidate, and the judge compares two"]
