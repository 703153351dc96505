"""The Results page: blind votes become ratings and wins, and nothing where there are none."""

import json
from typing import Any, get_args

import pytest
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen

from imgalign.images import png
from imgalign.preferences import outcomes
from imgalign.preferences.exclusions import exclude, include
from imgalign.preferences.makers import Method
from imgalign.preferences.store import Store
from ui.app import Settings
from ui.leaderboard import HELD_OUT, LISTED, Asked, Leaderboard, Rated
from ui.pages import results
from ui.runs import Runs


@pytest.fixture
def battles(store: Store) -> Any:
    """Rankings of pairs of two makers; `won` says in how many the second was preferred."""

    def fight(prompts: int, won: int, *, project: str = "default", who: str = "ann") -> None:
        store.add_annotator(who, group="warm")
        for number in range(prompts):
            prompt = f"{project} {number}"
            ids = [
                store.add_image(
                    png(Image.new("RGB", (8, 8), (len(who), 2 * number + k, len(project)))),
                    provenance(prompt=prompt, adapter=adapter, adapter_hash=adapter),
                )
                for k, adapter in enumerate((None, "runs/<b>mine</b>"))
            ]
            store.add_item(prompt, ids, source="test", project=project)
            item = store.next_item(who, project=project)
            if item is None:  # as before
                continue
            order = ((1,), (0,)) if number < won else ((0,), (1,))
            store.submit(judge(item, who, ranking=on_screen(store, item, order, who)))

    return fight


@pytest.fixture
def board(store: Store, settings: Settings) -> Leaderboard:
    return Leaderboard(store, Runs(settings.runs))


def table(board: Leaderboard, project: str = "", group: str = "", **asked: Any) -> str:
    """The ratings alone, read anew."""
    found = Leaderboard(board.store, board.runs)
    return results.table(found.found(Asked(project=project, group=group, **asked)).rated)


def test_without_rankings_of_two_makers_it_says_how_to_get_some(board: Leaderboard) -> None:
    said = results.shown(board, Asked())
    assert "Nobody has ranked images of two models beside each other yet." in said
    assert 'href="generate"' in said
    assert 'href="./"' in said
    assert "expected" not in said


def test_pairs_that_wait_to_be_ranked_are_said_with_a_link(
    store: Store, battles: Any, board: Leaderboard
) -> None:
    ids = [store.add_image(png(Image.new("RGB", (8, 8), (k, 0, 0))), provenance()) for k in (0, 1)]
    store.add_item("a fox", ids, source="test", project="default-compare")
    for project in ("", "default"):
        said = results.shown(board, Asked(project=project))
        assert "1 pair waits to be ranked in the project default-compare." in said
        assert 'href="./?project=default-compare"' in said
        assert "draw a checkpoint" not in said
    elsewhere = Leaderboard(board.store, board.runs, only="default")
    said = results.shown(elsewhere, Asked())
    assert "1 pair waits" in said
    assert "Rank them" not in said


def test_pairs_that_were_skipped_wait_for_nobody(
    store: Store, battles: Any, board: Leaderboard
) -> None:
    ids = [store.add_image(png(Image.new("RGB", (8, 8), (k, 0, 0))), provenance()) for k in (0, 1)]
    store.add_item("a fox", ids, source="test", project="default-compare")
    store.add_annotator("zoe")
    item = store.next_item("zoe", project="default-compare")
    store.submit(judge(item, "zoe", verdict="skipped", ranking=None, reason="broken image"))
    assert "to be ranked" not in results.shown(board, Asked())


def test_a_choice_that_leaves_nothing_says_what_there_is(
    store: Store, battles: Any, board: Leaderboard
) -> None:
    battles(3, 2)
    assert "There are 3 rankings of images, but none of what is chosen" in table(board, "", "cold")
    listed = {"prompts": LISTED, "listed": "a bird"}
    assert "There are 3 rankings of images, but none of what is chosen" in table(board, **listed)
    assert "expected at least one prompt" in results.shown(board, Asked(prompts=LISTED))
    exclude(store.database, "ann", project="default")
    said = table(board)
    assert "all of them by annotators who are excluded" in said
    assert 'href="people"' in said


def test_the_preferred_checkpoint_is_above_its_base_with_an_interval(
    battles: Any, board: Leaderboard
) -> None:
    battles(8, 6)
    shown = table(board)
    # What an adapter is called is text, whatever is in it.
    assert "runs/&lt;b&gt;mine&lt;/b&gt;" in shown
    assert "<b>mine" not in shown
    assert shown.index("m + runs/") < shown.index(">m</th>")
    assert "95 % intervals over 8 prompts" in shown
    assert "75 % <small>8</small>" in shown
    assert "25 % <small>8</small>" in shown
    for method in ("plackett-luce", "elo"):
        assert "Against each other" in table(board, method=method)


def test_rankings_of_excluded_annotators_are_left_out_and_counted(
    store: Store, battles: Any, board: Leaderboard
) -> None:
    battles(4, 4)
    alone = table(board)
    battles(4, 0, project="dogs", who="bob")
    assert table(board) != alone
    exclude(store.database, "bob", project="dogs")
    said = " 4 rankings are of excluded annotators: left out."
    assert table(board).replace(said, "") == alone
    assert said in table(board, method="elo")


def test_projects_groups_and_prompts_are_told_apart(
    store: Store, battles: Any, board: Leaderboard
) -> None:
    battles(4, 4, project="cats")
    battles(4, 1, project="a dog", who="bob")
    projects, groups, prompts = results.choices(store)
    assert projects == [("all", ""), ("a dog: 4 rankings", "a dog"), ("cats: 4 rankings", "cats")]
    assert groups == [("everybody", ""), ("warm", "warm")]
    assert ("those of cats", "project cats") in prompts
    assert "100 % <small>4</small>" in table(board, "cats")
    assert "25 % <small>4</small>" in table(board, "a dog", "warm")
    assert "100 % <small>4</small>" in table(board, prompts="project cats")
    listed = {"prompts": LISTED, "listed": "Cats  0\n cats 1\na dog 3\n"}
    assert "67 % <small>3</small>" in table(board, **listed)


def test_held_out_prompts_are_those_that_no_run_here_has_seen(
    battles: Any, board: Leaderboard
) -> None:
    battles(4, 2)
    assert "50 % <small>4</small>" in table(board, prompts=HELD_OUT)
    run = board.runs.folder / "mine"
    run.mkdir(parents=True)
    (run / "status.json").write_text("{}")
    assert "50 % <small>4</small>" in results.shown(board, Asked(prompts=HELD_OUT))
    known = {"training": ["default 0", "other"], "held_out": ["Default  1"]}
    (run / "prompts.json").write_text(json.dumps(known))
    # Both prompts on which the checkpoint was preferred were known; the page asks the run anew.
    assert "100 % <small>2</small>" in results.shown(board, Asked(prompts=HELD_OUT))
    assert "0 % <small>2</small>" in results.shown(board, Asked(prompts=HELD_OUT))


def test_makers_that_were_never_compared_stand_apart_with_a_warning(
    store: Store, battles: Any, board: Leaderboard
) -> None:
    battles(4, 3)
    assert "never ranked together" not in table(board)
    for number in range(4):
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (200 + k, number, 0))),
                provenance(model=f"other {k}", prompt=f"p {number}"),
            )
            for k in range(2)
        ]
        store.add_item(f"p {number}", ids, source="test")
        item = store.next_item("ann")
        store.submit(judge(item, "ann", ranking=((0,), (1,))))
    for method in ("bradley-terry", "plackett-luce", "elo"):
        shown = table(board, method=method)
        assert "Images of these 2 groups were never ranked together" in shown
        assert shown.count("<h4>Group") == 2
        assert shown.count("95 % intervals over 4 prompts") == 2
        for name in ("other 0", "other 1", "m"):
            assert f'<th scope="row">{name}</th>' in shown


def test_the_pair_that_is_known_least_is_offered_with_the_reason(
    store: Store, battles: Any, board: Leaderboard
) -> None:
    battles(4, 2)
    assert "Next, compare" not in table(board)  # of two there is nothing to choose
    for number in range(3):
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (200 + k, number, 0))),
                provenance(**by, prompt=f"p {number}"),
            )
            for k, by in enumerate(({}, {"model": "other <i>one</i>"}))
        ]
        store.add_item(f"p {number}", ids, source="test")
        store.submit(judge(store.next_item("ann"), "ann", ranking=((0,), (1,))))
    for method in ("bradley-terry", "plackett-luce"):
        shown = table(board, method=method)
        assert (
            "Next, compare m + runs/&lt;b&gt;mine&lt;/b&gt; with other &lt;i&gt;one&lt;/i&gt;: "
            "they were never compared directly, and the difference of their ratings is the least "
            "certain of all (standard error "
        ) in shown
        assert "<i>one" not in shown
    assert "Next, compare" not in table(board, method="elo")


def test_ratings_over_time_end_where_the_table_stands(battles: Any, board: Leaderboard) -> None:
    battles(8, 6)
    shown = table(board)
    assert 'aria-label="Ratings above that of' in shown
    assert "<b>mine" not in shown
    (found,) = board.found(Asked()).rated.ratings.history
    ratings = board.found(Asked()).rated.ratings.ratings
    own = next(name for name in found.above if name != found.reference)
    difference = dict(zip(ratings.items, ratings.score, strict=True))
    expected = difference[own] - difference[found.reference]
    assert found.above[own][-1] == pytest.approx(expected, abs=1e-6)
    assert f"<td>{expected:+.2f}</td></tr>" in shown


@pytest.mark.parametrize("method", get_args(Method))
def test_the_chart_ends_where_the_table_stands_for_each_kind_of_rating(
    battles: Any, board: Leaderboard, store: Store, method: Method
) -> None:
    battles(9, 6)
    sides = ({}, {"adapter": "runs/<b>mine</b>", "adapter_hash": "runs/<b>mine</b>"})
    ids = [
        store.add_image(png(Image.new("RGB", (8, 8), (99, k, 0))), provenance(prompt="tie", **by))
        for k, by in enumerate(sides)
    ]
    store.add_item("tie", ids, source="test")
    store.submit(judge(store.next_item("ann"), "ann", ranking=((0, 1),)))
    found = board.found(Asked(method=method)).rated.ratings
    stands = dict(zip(found.ratings.items, found.ratings.score, strict=True))
    (history,) = found.history
    own = next(name for name in history.above if name != history.reference)
    expected = stands[own] - stands[history.reference]
    assert history.num_rankings[-1] == 10
    assert history.above[own][-1] == pytest.approx(expected, abs=1e-6)
    assert abs(expected) > 0.1
    drawn = results.table(Rated(found))
    sign = "+.0f" if method == "elo" else "+.2f"
    assert f"<td>{expected:{sign}}</td></tr>" in drawn
    assert results.OVER_TIME[method] in drawn


def test_an_unchanged_store_is_not_counted_again_and_a_vote_is_seen_at_once(
    store: Store, battles: Any, board: Leaderboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    battles(3, 3)
    read: list[Any] = []
    real = outcomes.read
    monkeypatch.setattr(outcomes, "read", lambda c: read.append(c) or real(c))
    first = results.shown(board, Asked())
    assert len(read) == 2
    assert results.shown(board, Asked()) == first
    assert len(read) == 2
    results.shown(board, Asked(method="elo"))
    assert len(read) == 3  # comparisons are the same by any method
    battles(4, 3)
    assert "of 4 blind votes" in results.shown(board, Asked())
    store.undo("ann", store.history("ann", 1)[0].key)
    assert results.shown(board, Asked()) == first


def test_a_page_that_stays_open_shows_what_one_opened_anew_does_whatever_changes(
    store: Store, battles: Any, board: Leaderboard
) -> None:
    asked = (
        Asked(),
        Asked(group="warm", method="plackett-luce"),
        Asked(project="cats"),
        Asked(prompts=LISTED, listed="cats 0\ncats 2\ncats 3"),
    )

    def pages() -> list[str]:
        stays = [results.shown(board, each) for each in asked]
        opened = Leaderboard(store, board.runs)
        assert stays == [results.shown(opened, each) for each in asked]
        return stays

    def more(overlap: int, shades: tuple[int, int]) -> None:
        ids = [
            store.add_image(
                png(Image.new("RGB", (8, 8), (200, shade, 0))),
                provenance(prompt="cats 0", adapter=adapter, adapter_hash=adapter),
            )
            for shade, adapter in zip(shades, (None, "runs/<b>mine</b>"), strict=True)
        ]
        store.add_item("cats 0", ids, source="test", project="cats", overlap=overlap)

    def also_made_by(adapter: str) -> None:
        open_image = png(Image.new("RGB", (8, 8), (200, 11, 0)))
        store.add_image(open_image, provenance(adapter=adapter, adapter_hash=adapter))

    changes = (
        lambda: battles(5, 4, project="cats"),
        lambda: battles(5, 1, project="dogs", who="bob"),
        lambda: more(2, (10, 11)),  # its prompt waits
        lambda: also_made_by("runs/other"),  # the open item is of one maker alone
        lambda: more(1, (12, 13)),
        lambda: store.undo("ann", store.history("ann", 1)[0].key),
        lambda: exclude(store.database, "bob", project="dogs"),
        lambda: include(store.database, "bob", project="dogs"),
        lambda: battles(1, 1, project="cats", who="eve"),
    )
    before: list[str] = []
    for change in changes:
        change()
        now = pages()
        assert now != before
        before = now


def test_pairs_that_were_both_bad_are_told_and_what_to_do_next(
    board: Leaderboard, battles: Any, store: Store
) -> None:
    battles(3, 0, project="cats-compare")
    for each in store.history("ann", 10):
        store.undo("ann", each.key)
    for _ in range(3):
        item = store.next_item("ann", project="cats-compare")
        assert item is not None
        bad = judge(item, "ann", key=f"bad {item.item_id}", verdict="all_bad", ranking=None)
        store.submit(bad)
    shown = results.shown(board, Asked())
    assert "3 times both were bad, which counts for neither" in shown
    assert "&lt;b&gt;mine&lt;/b&gt; and " in shown
    assert '<a href="generate">Generate</a>' in shown
    assert "Nobody has ranked" not in shown
    battles(2, 2, project="dogs-compare")
    shown = results.shown(board, Asked())
    assert "3 times more both were bad, which counts for neither" in shown
    assert shown.count('class="duel"') == 1


def test_who_won_is_said_first_and_what_it_is_called_is_text(
    battles: Any, board: Leaderboard
) -> None:
    assert 'class="duel' not in results.shown(board, Asked())
    battles(8, 8)
    shown = results.shown(board, Asked())
    assert shown.index("was preferred to m in 100 % of 8 blind votes") < shown.index("All together")
    assert "Decided: m + runs/&lt;b&gt;mine&lt;/b&gt; is preferred" in shown
    assert "<b>mine" not in shown
    assert "home for" not in shown  # no run of this folder
