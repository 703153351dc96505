"""One's own votes over HTTP: pages, blindness, small copies, and how often one may ask."""

import io
import json

import pytest
from PIL import Image
from served_app import built
from starlette.testclient import TestClient
from texts import add_texts, text_provenance

from imgalign.errors import StoreError
from ui.api import rank
from ui.api.pace import MOST_NAMES, Pace
from ui.api.small import MOST_CHARACTERS, SIDE, small_png, small_text
from ui.app import Settings


@pytest.fixture
def client(store, tmp_path):
    settings = Settings(images=tmp_path / "images", runs=tmp_path / "runs", pages=("rank",))
    app = built(settings, store)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def vote(store, *, annotator="Ada", **changes):
    """Judge what comes next under the key of its number; what was shown."""
    shown = rank.next_item(store, annotator)
    ranked = {
        "ranking": [[position] for position in range(len(shown.candidates))],
        "verdict": "ranked",
    }
    key = f"{annotator}-{shown.done:08d}"
    answer = rank.Answer(annotator=annotator, key=key, item=shown.item, **(ranked | changes))
    rank.submit(store, answer)
    return shown


def votes_of(store, annotator="Ada", before=None):
    return rank.own_votes_page(store, rank.Earlier(annotator=annotator, before=before))


def test_votes_are_given_in_pages_each_from_where_the_last_one_ended(store, add_items):
    add_items(13, num_images=2)
    for _ in range(13):
        vote(store)
    first = votes_of(store)
    assert (len(first.votes), first.more) == (rank.VOTES_PER_PAGE, True)
    second = votes_of(store, before=first.votes[-1].key)
    assert (len(second.votes), second.more) == (3, False)
    numbers = [int(each.prompt.split()[-1]) for each in first.votes + second.votes]
    assert numbers == list(range(12, -1, -1))
    assert votes_of(store, before=second.votes[-1].key) == rank.Votes(votes=[], more=False)


def test_a_vote_has_its_verdict_and_small_copies_by_the_tokens_of_its_screen(store, add_items):
    add_items(2)
    shown = vote(store, ranking=[[2], [0, 3], [1]])
    vote(store, ranking=None, verdict="skipped", reason="unsafe")
    skipped, ranked = votes_of(store).votes
    assert (skipped.verdict, skipped.reason, skipped.ranking) == ("skipped", "unsafe", None)
    assert ranked.ranking == ((2,), (0, 3), (1,))
    assert [each.token for each in ranked.candidates] == [each.token for each in shown.candidates]
    assert all(each.url.startswith("api/rank/images/small/") for each in ranked.candidates)


def test_nobody_pages_by_the_key_of_somebody_else(store, add_items):
    add_items(1)
    vote(store, annotator="Bob")
    vote(store)
    assert [each.key for each in votes_of(store).votes] == ["Ada-00000000"]
    with pytest.raises(StoreError, match="nothing by annotator 'Ada'"):
        votes_of(store, before="Bob-00000000")


def test_nothing_in_ones_votes_says_what_made_a_sample(client, store, add_items, secrets):
    add_items(1, parameters="SECRET-MODEL, seed 918273645", Software="SECRET-RUN")
    made = text_provenance(model="SECRET-MODEL", adapter="SECRET-RUN", seed=918273645)
    ids = [store.add_text(text, made) for text in ("a red cat", "a cat")]
    store.add_item("a cat", ids, source="SECRET-RUN")
    vote(store)
    vote(store)
    client.headers["Accept-Encoding"] = "identity"
    page = client.post("/api/rank/votes", json={"annotator": "Ada"})
    voted = page.json()["votes"]
    urls = [each["url"] for each_vote in voted for each in each_vote["candidates"]]
    responses = [page, *(client.get(f"/{url}") for url in urls)]
    assert [each.status_code for each in responses] == [200] * 7
    assert set(voted[0]) == {
        *("key", "prompt", "samples", "candidates", "ranking", "verdict", "reason", "at")
    }
    image_ids = [sample for each in store.rankings() for sample in each.sample_ids]
    leaks = [
        (str(each.request.url), secret)
        for each in responses
        for secret in (*secrets, *image_ids)
        if secret.encode() in json.dumps(dict(each.headers)).encode() + each.content
        or secret in str(each.request.url)
    ]
    assert leaks == []


def test_small_copies_go_to_the_annotator_they_were_shown_to_only(client, store, add_items):
    add_items(1)
    shown = vote(store)
    vote(store, annotator="Eve")
    token = shown.candidates[0].token
    for path in (
        f"images/small/{token}?annotator=Eve",
        "images/small/none?annotator=Ada",
        f"texts/small/{token}?annotator=Ada",
    ):
        assert client.get(f"/api/rank/{path}").status_code == 409, path
    answer = client.get(f"/api/rank/images/small/{token}?annotator=Ada")
    assert answer.headers["cache-control"].startswith("private")


def test_a_small_image_is_no_larger_than_it_was_and_keeps_its_proportions():
    out = io.BytesIO()
    Image.new("RGB", (1024, 512), (200, 30, 40)).save(out, "PNG")
    small = Image.open(io.BytesIO(small_png(out.getvalue())))
    assert small.size == (SIDE, SIDE // 2)
    assert small.getpixel((80, 40)) == (200, 30, 40)
    assert small.info == {}
    assert Image.open(io.BytesIO(small_png(small_png(out.getvalue())))).size == small.size


def test_a_small_text_is_its_beginning():
    assert small_text("a cat") == "a cat"
    cut = small_text("x" * 5000)
    assert (len(cut), cut[-2:]) == (MOST_CHARACTERS, "x…")


def test_a_small_text_is_served_as_plain_text(client, store):
    add_texts(store, ("<b>cat</b>", "y" * 5000))
    vote(store)
    (own,) = client.post("/api/rank/votes", json={"annotator": "Ada"}).json()["votes"]
    answers = [client.get(f"/{each['url']}") for each in own["candidates"]]
    assert {len(each.text) for each in answers} == {len("<b>cat</b>"), MOST_CHARACTERS}
    assert all(each.headers["content-type"].startswith("text/plain") for each in answers)


def test_who_asks_too_often_is_told_to_wait_and_nobody_else_is(client, store, add_items):
    add_items(1)
    vote(store)
    vote(store, annotator="Bob")

    def ask(name):
        return client.post("/api/rank/votes", json={"annotator": name})

    answers = [ask(name) for name in ("Ada", " ADA ") for _ in range(rank.VOTES_AT_ONCE)]
    refused = [each for each in answers if each.status_code == 429]
    assert refused
    assert "wait a few seconds" in refused[0].json()["error"]
    assert ask("Bob").status_code == 200
    assert ask("a stranger").json() == {"votes": [], "more": False}
    assert store.annotator("a stranger") is None


def test_a_pace_is_a_burst_and_then_so_many_a_second():
    now = [0.0]
    pace = Pace(burst=3, per_second=0.5, clock=lambda: now[0])
    assert [pace.allows("Ada") for _ in range(4)] == [True, True, True, False]
    now[0] = 2.0
    assert [pace.allows("Ada") for _ in range(2)] == [True, False]
    now[0] = 1000.0
    assert [pace.allows("Ada") for _ in range(4)] == [True, True, True, False]


def test_a_pace_forgets_names_that_have_rested():
    now = [0.0]
    pace = Pace(burst=1, per_second=1.0, clock=lambda: now[0])
    for number in range(MOST_NAMES):
        pace.allows(f"name {number}")
    now[0] = 5.0
    pace.allows("one more")
    assert len(pace._left) == 1
    assert not pace.allows("one more")
