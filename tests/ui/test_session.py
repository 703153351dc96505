import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgalign.errors import InputError
from ui.session import MAX_IMAGES, SKIP_REASONS, Session

quick = settings(deadline=None, max_examples=50)
positions = st.integers(0, 4)
steps = st.one_of(
    st.tuples(st.just("place"), positions),
    st.tuples(st.just("unplace"), positions),
    st.tuples(st.just("move_last"), positions),
    st.tuples(st.just("tie_with"), positions, positions),
    st.tuples(st.just("insert_before"), positions, positions),
    st.tuples(st.sampled_from(["toggle_tie", "judge_all_bad", "complete", "clear", "undo"])),
    st.tuples(st.just("skip"), st.sampled_from(SKIP_REASONS)),
)


def play(moves, session=None):
    session = session or Session(5)
    for name, *arguments in moves:
        session = getattr(session, name)(*arguments)
    return session


def test_numbers_place_pictures_best_first():
    assert play([("place", 2), ("place", 0), ("place", 1)]).groups == ((2,), (0,), (1,))


def test_the_same_number_again_takes_a_picture_out_and_the_others_move_up():
    session = play([("place", 2), ("place", 0), ("place", 1), ("place", 0)])
    assert session.groups == ((2,), (1,))


def test_a_tie_joins_the_last_picture_to_the_rank_before_and_breaks_again():
    placed = play([("place", 2), ("place", 0), ("place", 1)])
    assert placed.toggle_tie().groups == ((2,), (0, 1))
    assert placed.toggle_tie().toggle_tie() == placed


def test_a_tie_needs_a_rank_before_it():
    assert Session(4).place(0).toggle_tie().groups == ((0,),)


def test_taking_out_the_head_of_a_tie_does_not_tie_its_mate_to_the_rank_before():
    session = play([("place", 3), ("place", 1), ("place", 2), ("toggle_tie",), ("place", 1)])
    assert session.groups == ((3,), (2,))


def test_a_drop_on_a_rank_ties_and_a_drop_before_one_makes_room():
    session = play([("place", 0), ("place", 1), ("place", 2)])
    assert session.tie_with(2, 0).groups == ((0, 2), (1,))
    assert session.insert_before(2, 0).groups == ((2,), (0,), (1,))
    assert session.move_last(0).groups == ((1,), (2,), (0,))


def test_only_the_last_missing_picture_is_placed_by_completing():
    assert Session(3).place(1).complete().groups == ((1,),)
    assert Session(3).place(1).place(0).complete().groups == ((1,), (0,), (2,))


def test_a_verdict_is_ready_at_once_and_placing_a_picture_takes_it_back():
    assert Session(4).judge_all_bad().ready
    assert Session(4).skip("unsafe").ready
    assert Session(4).judge_all_bad().place(1).verdict == "ranked"
    assert not Session(4).judge_all_bad().judge_all_bad().ready


def test_a_verdict_keeps_the_ranking_behind_it():
    placed = Session(4).place(3).place(1)
    assert placed.skip("unsafe").skip("unsafe").groups == placed.groups


@quick
@given(st.lists(steps, max_size=30))
def test_every_reachable_session_places_each_picture_at_most_once(moves):
    session = play(moves)
    flat = [position for group in session.groups for position in group]
    assert sorted(flat + list(session.missing)) == list(range(5))
    assert flat == list(session.placed)
    assert not session.tied or not session.tied[0]


@quick
@given(st.lists(steps, max_size=30))
def test_undo_walks_back_to_the_start_one_state_at_a_time(moves):
    session = play([move for move in moves if move[0] != "undo"])
    for before in reversed(session.past):
        session = session.undo()
        assert session == before
    assert session == Session(5)
    assert session.undo() == session


@quick
@given(st.lists(steps, max_size=30))
def test_what_the_browser_sends_is_rebuilt_exactly(moves):
    session = play(moves)
    restored = Session.restored(
        5,
        placed=session.placed,
        tied=session.tied,
        verdict=session.verdict,
        reason=session.reason,
    )
    assert restored == session


@quick
@given(st.permutations(range(5)), st.permutations(range(5)), st.lists(st.booleans(), min_size=4))
def test_a_submission_names_candidates_where_the_session_names_places(order, shown, ties):
    session = Session(5)
    for position, tie in zip(shown, [False, *ties], strict=False):
        session = session.place(position)
        session = session.toggle_tie() if tie else session
    sent = session.submission(key="k", item_id="i", annotator="a", order=order, client_ms=None)
    place_of = {candidate: position for position, candidate in enumerate(sent.order)}
    back = tuple(tuple(sorted(place_of[c] for c in group)) for group in sent.ranking)
    assert back == tuple(tuple(sorted(group)) for group in session.groups)


def test_a_verdict_submits_no_ranking_even_with_pictures_placed():
    skipped = Session(2).place(1).skip("too similar")
    sent = skipped.submission(key="k", item_id="i", annotator="a", order=(1, 0), client_ms=12)
    assert (sent.ranking, sent.verdict, sent.reason) == (None, "skipped", "too similar")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placed": (0, 0), "tied": (False, False)}, "placed twice"),
        ({"placed": (4,), "tied": (False,)}, "expected positions 0 to 3"),
        ({"placed": (-1,), "tied": (False,)}, "expected positions 0 to 3"),
        ({"placed": (1,), "tied": (True,)}, "nothing before it"),
        ({"placed": (1,), "tied": ()}, "one tie flag per placed image"),
        ({"verdict": "liked"}, "expected one of"),
        ({"verdict": "skipped"}, "a skip needs one"),
        ({"verdict": "skipped", "reason": "bored"}, "expected one of"),
        ({"reason": "unsafe"}, "nothing else may have one"),
    ],
)
def test_what_nobody_could_have_made_by_hand_is_refused(changes, message):
    sent = {"placed": (), "tied": (), "verdict": "ranked", "reason": None} | changes
    with pytest.raises(InputError, match=message):
        Session.restored(4, **sent)


def test_an_unfinished_ranking_cannot_be_submitted():
    with pytest.raises(InputError, match="without a rank: 1, 3"):
        Session(3).place(1).submission(
            key="k", item_id="i", annotator="a", order=(0, 1, 2), client_ms=None
        )


@pytest.mark.parametrize("count", [0, 1, MAX_IMAGES + 1])
def test_a_ranking_has_two_to_nine_pictures(count):
    with pytest.raises(InputError, match="expected 2 to 9 images"):
        Session(count)
