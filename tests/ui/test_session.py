import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgalign.errors import InputError
from ui.session import MAX_IMAGES, Session

quick = settings(deadline=None, max_examples=50)


def test_a_tie_shares_the_rank_of_the_picture_before():
    session = Session(4, (2, 0, 1), (False, False, True))
    assert session.groups == ((2,), (0, 1))
    assert session.missing == (3,)
    assert not session.ready


def test_a_verdict_is_ready_without_a_ranking():
    assert Session(4, verdict="all_bad").ready
    assert Session(4, verdict="skipped", reason="unsafe").ready


@quick
@given(
    st.permutations(range(5)),
    st.permutations(range(5)),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_a_submission_names_candidates_where_the_session_names_places(order, shown, ties):
    session = Session(5, tuple(shown), (False, *ties))
    sent = session.submission(key="k", item_id="i", annotator="a", order=order, client_ms=None)
    place_of = {candidate: position for position, candidate in enumerate(sent.order)}
    back = tuple(tuple(sorted(place_of[c] for c in group)) for group in sent.ranking)
    assert back == tuple(tuple(sorted(group)) for group in session.groups)


def test_a_verdict_submits_no_ranking_even_with_pictures_placed():
    skipped = Session(2, (1,), (False,), "skipped", "too similar")
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
        Session(3, (1,), (False,)).submission(
            key="k", item_id="i", annotator="a", order=(0, 1, 2), client_ms=None
        )


@pytest.mark.parametrize("count", [0, 1, MAX_IMAGES + 1])
def test_a_ranking_has_two_to_nine_pictures(count):
    with pytest.raises(InputError, match="expected 2 to 9 images"):
        Session(count)
