"""The transitions of a ranking in the making, `session.js`, in a real browser."""

import json
import random
from itertools import pairwise
from typing import Any

import pytest

from imgalign.errors import InputError
from imgalign.preferences import validation
from ui.api.rank import SKIP_REASONS, Answer
from ui.theme import asset

pytestmark = pytest.mark.browser
PAGES = ("rank",)  # others take their time to build

ONE = ("place", "unplace", "moveLast")
TWO = ("tieWith", "insertBefore")
NONE = ("toggleTie", "judgeAllBad", "complete", "clear", "undo")


def played(page: Any, games: list[list[list[Any]]], count: int = 5) -> list[list[dict[str, Any]]]:
    """The state after each move of each game, the start included."""
    program = f"""; {json.dumps(games)}.map((moves) => {{
        let s = Session.fresh({count});
        const tell = () => ({{...s, groups: Session.groups(s), ready: Session.ready(s),
                              missing: Session.missing(s), past: s.past.length,
                              sent: Session.judgement(s),
                              again: Session.restored({count}, Session.judgement(s))}});
        return [tell(), ...moves.map(([name, ...rest]) => {{
            s = Session[name](s, ...rest);
            return tell();
        }})];
    }})"""
    return page.evaluate(asset("session.js") + program)


def last(page: Any, *moves: list[Any], count: int = 5) -> dict[str, Any]:
    return played(page, [list(moves)], count)[0][-1]


def placing(*positions: int) -> list[list[Any]]:
    return [["place", position] for position in positions]


def random_games(seed: int, *, moves: tuple[str, ...] = NONE) -> list[list[list[Any]]]:
    rng = random.Random(seed)
    games = []
    for _ in range(60):
        game: list[list[Any]] = []
        for _ in range(25):
            name = rng.choice([*ONE, *ONE, *TWO, *moves, "skip"])
            if name == "skip":
                game.append([name, rng.choice(SKIP_REASONS["images"])])
            else:
                count = 1 if name in ONE else 2 if name in TWO else 0
                game.append([name, *(rng.randrange(5) for _ in range(count))])
        games.append(game)
    return games


def test_numbers_place_images_best_first_and_again_take_them_out(page):
    assert last(page, *placing(2, 0, 1))["groups"] == [[2], [0], [1]]
    assert last(page, *placing(2, 0, 1, 0))["groups"] == [[2], [1]]


def test_a_tie_joins_the_last_image_to_the_rank_before_and_breaks_again(page):
    placed = placing(2, 0, 1)
    assert last(page, *placed, ["toggleTie"])["groups"] == [[2], [0, 1]]
    assert last(page, *placed, ["toggleTie"], ["toggleTie"])["groups"] == [[2], [0], [1]]
    assert last(page, *placing(0), ["toggleTie"])["groups"] == [[0]]


def test_taking_out_the_head_of_a_tie_does_not_tie_its_mate_to_the_rank_before(page):
    state = last(page, *placing(3, 1, 2), ["toggleTie"], ["place", 1])
    assert state["groups"] == [[3], [2]]


def test_a_drop_on_a_rank_ties_and_a_drop_before_one_makes_room(page):
    placed = placing(0, 1, 2)
    assert last(page, *placed, ["tieWith", 2, 0])["groups"] == [[0, 2], [1]]
    assert last(page, *placed, ["insertBefore", 2, 0])["groups"] == [[2], [0], [1]]
    assert last(page, *placed, ["moveLast", 0])["groups"] == [[1], [2], [0]]


def test_only_the_last_missing_image_is_placed_by_completing(page):
    assert last(page, *placing(1), ["complete"], count=3)["groups"] == [[1]]
    assert last(page, *placing(1, 0), ["complete"], count=3)["groups"] == [[1], [0], [2]]


def test_a_verdict_is_ready_at_once_keeps_the_ranking_and_is_taken_back(page):
    placed = placing(3, 1)
    bad, skip = ["judgeAllBad"], ["skip", "unsafe"]
    assert last(page, bad)["ready"]
    assert last(page, skip)["ready"]
    assert not last(page, bad, bad)["ready"]
    assert last(page, bad, ["place", 1])["verdict"] == "ranked"
    assert last(page, *placed, skip, skip)["groups"] == [[3], [1]]
    assert last(page, *placed, skip, skip)["verdict"] == "ranked"


def taken(sent: dict[str, Any]) -> bool:
    """Whether the server takes a judgement of five images."""
    answer = Answer(annotator="Ada", key="key-0001", item="i", **sent)
    try:
        ranking = validation.judgement(
            verdict=answer.verdict, reason=answer.reason, ranking=answer.ranking
        )
        validation.fits_screen(ranking, 5)
    except InputError:
        return False
    return True


def test_the_server_takes_whatever_is_done_by_hand_once_it_is_ready(page):
    states = [state for states in played(page, random_games(0)) for state in states]
    assert {state["ready"] for state in states} == {True, False}
    for state in states:
        assert taken(state["sent"]) == state["ready"]


def test_a_verdict_is_sent_without_the_images_that_were_placed_before(page):
    for verdict in (["judgeAllBad"], ["skip", "unsafe"]):
        assert last(page, *placing(3, 1), verdict)["sent"]["ranking"] is None


def test_what_was_sent_can_be_gone_on_from(page):
    for states in played(page, random_games(2)):
        for state in states:
            again = state["again"]
            names = ("verdict", "reason", *(("placed", "tied") if state["sent"]["ranking"] else ()))
            assert {name: again[name] for name in names} == {name: state[name] for name in names}
            assert again["past"] == []


def test_undo_walks_back_to_the_start_one_state_at_a_time(page):
    games = random_games(1, moves=tuple(name for name in NONE if name != "undo"))
    for moves, there in zip(games, played(page, games), strict=True):
        (back,) = played(page, [[*moves, *[["undo"]] * len(moves)]])
        reached = [there[0], *(after for before, after in pairwise(there) if after != before)]
        undone = back[len(moves) :]
        assert undone[: len(reached)] == reached[::-1]
        assert undone[-1] == there[0]  # and no further
