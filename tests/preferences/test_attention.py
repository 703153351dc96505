"""Attention items: built so that anybody gets them right, and out of all that learns or rates."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from judges import JUDGE
from sqlalchemy import text
from submissions import judge, on_screen

from imgalign.errors import InputError, StoreError
from imgalign.preferences.attention import add_attention, attention_items, bring_back, withdraw
from imgalign.preferences.checking import check_store
from imgalign.preferences.coverage import judged_projects, project_standings
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.exclusions import exclude, include, num_left_out
from imgalign.preferences.gold import gold_items, mark_gold
from imgalign.preferences.judges import add_judge
from imgalign.preferences.makers import item_makers, rate_makers, read_makers
from imgalign.preferences.people import people_of
from imgalign.preferences.records import Answer, TieGroups
from imgalign.preferences.repeats import ask_again
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples, latest_items

DIFFERENT = ("a red fox in snow", "an old castle", "two cups of coffee", "a train at night")
SIMILAR = ("a fox", "many foxes in a photo", "the fox and the castle")
BEST_FIRST: TieGroups = ((0,), (1, 2))
BEST_LAST: TieGroups = ((2,), (1,), (0,))


@pytest.fixture
def queue(store: Store, png: Any, provenance: Any) -> Callable[..., list[str]]:
    """Queue an item of three images, each by another model, for each of some prompts."""

    def add(*prompts: str, overlap: int = 2, made_for: str | None = None, first: int = 0) -> Any:
        added = []
        for number, prompt in enumerate(prompts, first):
            images = [
                store.add_image(
                    png(10 * number + k),
                    provenance(prompt=made_for or prompt, model=f"model {k}", seed=k),
                )
                for k in range(3)
            ]
            added.append(store.add_item(prompt, images, source="test", overlap=overlap))
        return added

    return add


def judge_all(store: Store, who: str, order: TieGroups) -> list[str]:
    """Judge what is left; the items in the order in which they came."""
    items = []
    while (item := store.next_item(who)) is not None:
        store.submit(judge(item, who, ranking=on_screen(store, item, order, who)))
        items.append(item.item_id)
    return items


def readings(store: Store) -> dict[str, Any]:
    """What is learned, rated and counted of a project."""
    found = people_of(store, "default")
    return {
        "rankings": [each.ranking_id for each in store.rankings(judged_by="all")],
        "ratings": rate_makers(store, project="default", ridge=0.1).lines(),
        "judged": judged_projects(store),
        "standings": project_standings(store),
        "makers": item_makers(store, read_makers(store)),
        "sets": latest_items(store, "default", limit=100),
        "alpha": found.alpha,
        "agreement": [(each.quality.agreement, each.quality.gold) for each in found.people],
        "position": [each.quality.first_place for each in found.people],
        "consistency": [each.quality.self_consistency for each in found.people],
        "left out": num_left_out(store.database, project="default"),
    }


def test_one_image_belongs_to_the_prompt_and_the_others_to_quite_different_ones(store, queue):
    items = item_samples(store, queue(*DIFFERENT, *SIMILAR))
    prompt_of = {image: item.prompt for item in items for image in item.sample_ids}
    added = item_samples(store, add_attention(store, "default", count=4, overlap=2, seed=1))
    assert len({each.prompt for each in added}) == 4
    near = {*SIMILAR, "a red fox in snow"}
    for each in added:
        own, *others = (prompt_of[image] for image in each.sample_ids)
        assert own == each.prompt
        assert len(set(each.sample_ids)) == 3
        assert each.prompt not in others
        assert not (each.prompt in near and near & set(others)), each
        assert (each.prompt, *others) != ("an old castle", "the fox and the castle")
    assert check_store(store).passed


def test_the_same_seed_builds_the_same_items(store, queue, url, tmp_path):
    queue(*DIFFERENT)
    export_rankings(store, tmp_path / "export.jsonl")
    with Store.open(f"sqlite:///{tmp_path / 'b.db'}", images=tmp_path / "images") as other:
        import_rankings(other, tmp_path / "export.jsonl", images=tmp_path / "images")
        one, two = (
            add_attention(each, "default", count=3, overlap=1, seed=5) for each in (store, other)
        )
    assert one == two


def test_an_image_that_was_made_for_the_prompt_is_none_of_the_others(store, queue):
    """It is shown for another prompt, such as one that a rewriter made of it."""
    queue("an old castle")
    queue("two cups of coffee", made_for="the old castle on a hill", first=1)
    with pytest.raises(InputError, match="expected at most 0, got 1"):
        add_attention(store, "default", count=1, overlap=1)


def test_nothing_that_learns_rates_or_counts_reads_them_and_their_accuracy_is_shown(store, queue):
    queue(*DIFFERENT)
    for who in ("ann", "bob"):
        judge_all(store, who, BEST_LAST)
    before = readings(store)
    added = add_attention(store, "default", count=3, overlap=2, seed=0)
    assert set(judge_all(store, "ann", BEST_FIRST)) == set(added)
    assert set(judge_all(store, "bob", BEST_LAST)) == set(added)
    assert readings(store) == before
    shown = {each.annotator.name: each.quality for each in people_of(store, "default").people}
    accuracy = {name: (each.attention.value, each.attention.count) for name, each in shown.items()}
    assert accuracy == {"ann": (1.0, 3), "bob": (0.0, 3)}
    assert store.counts("ann").done == 7  # as any other, to who judges
    assert len(store.history("ann")) == 7
    assert check_store(store).passed


def test_they_stay_out_when_taken_back_excluded_exported_or_given_another_maker(
    store, queue, png, provenance, tmp_path
):
    queue(*DIFFERENT)
    for who in ("ann", "bob"):
        judge_all(store, who, BEST_LAST)
    add_attention(store, "default", count=2, overlap=2, seed=0)
    judge_all(store, "ann", BEST_LAST)
    store.undo("ann", store.history("ann", 1)[0].key)
    assert check_store(store).passed
    exclude(store.database, "ann", project="default")
    assert num_left_out(store.database) == 4
    assert check_store(store).passed
    include(store.database, "ann", project="default")
    store.add_image(png(0), provenance(model="model 9"))  # an image of several makers now
    assert check_store(store).passed
    export_rankings(store, tmp_path / "export.jsonl")
    with Store.open(f"sqlite:///{tmp_path / 'b.db'}", images=tmp_path / "images") as other:
        import_rankings(other, tmp_path / "export.jsonl", images=tmp_path / "images")
        assert check_store(other).passed
        assert readings(other) == readings(store)
        assert people_of(other, "default").people[0].quality.attention.count == 1


def test_they_are_not_asked_again(store, queue):
    queue(*DIFFERENT)
    judge_all(store, "ann", BEST_FIRST)
    add_attention(store, "default", count=4, overlap=2)
    judge_all(store, "ann", BEST_FIRST)
    with pytest.raises(InputError, match="expected at most 4, got 5"):
        ask_again(store, "default", count=5)


def test_they_come_among_the_open_ones_that_nobody_has_come_to(store, queue):
    nouns = ("fox", "castle", "coffee", "train", "harbour", "violin", "desert", "pumpkin")
    queue(*(f"a {noun}" for noun in (*nouns, "lighthouse", "bicycle")), overlap=3)
    for _ in range(4):
        store.submit(judge(store.next_item("ann")))
    store.submit(judge(store.next_item("bob"), "bob"))
    added = set(add_attention(store, "default", count=3, overlap=3, seed=2))
    came = judge_all(store, "bob", BEST_FIRST)
    assert len(came) == 12
    places = [place for place, item in enumerate(came) if item in added]
    assert min(places) >= 3  # bob had one of the four that ann was past
    assert places != [9, 10, 11]  # nor all at the end
    assert judge_all(store, "ann", BEST_FIRST) == came[3:]
    assert check_store(store).passed


def test_prompts_without_attention_items_come_first_and_a_second_time_makes_new_ones(store, queue):
    queue(*DIFFERENT)
    first = add_attention(store, "default", count=3, overlap=1)
    second = add_attention(store, "default", count=1, overlap=1)
    prompts = [each.prompt for each in item_samples(store, [*first, *second])]
    assert sorted(prompts) == sorted(DIFFERENT)
    assert len({*first, *second, *add_attention(store, "default", count=4, overlap=1)}) == 8


def test_a_source_that_only_looks_alike_is_of_an_ordinary_item(store, queue):
    queue("a red fox")
    images = item_samples(store, [store.next_item("ann").item_id])[0].sample_ids
    store.add_item("an old castle", images, source="Attention: 1")
    judge_all(store, "ann", BEST_FIRST)
    assert [each.prompt for each in store.rankings()] == ["a red fox", "an old castle"]
    assert check_store(store).passed


@pytest.mark.parametrize(
    ("count", "overlap", "message"),
    [
        (0, 1, "attention items: expected 1 to 100, got 0"),
        (101, 1, "attention items: expected 1 to 100, got 101"),
        (1, 0, "annotators: expected 1 to 10000, got 0"),
        (5, 1, "expected at most 2, got 5; each needs a prompt of project 'default' with images"),
    ],
)
def test_what_cannot_be_built_is_refused_and_nothing_is_queued(
    store, queue, count, overlap, message
):
    queue("a red fox", "an old castle")
    with pytest.raises(InputError, match=message):
        add_attention(store, "default", count=count, overlap=overlap)
    assert store.counts("ann").left == 2


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("a fox", "a house", True),
        ("a fox", "the foxes", False),
        ("a photo of a cat", "a photo of a dog", True),
        ("雪の中の狐", "古い城", True),
        ("雪の中の狐", "雪の中の猫", False),
        ("the", "a castle", False),  # it says nothing that could be told apart
    ],
)
def test_prompts_that_share_a_word_are_not_clearly_different(store, queue, one, other, differ):
    queue(one, other)
    if differ:
        assert len(add_attention(store, "default", count=2, overlap=1)) == 2
    else:
        with pytest.raises(InputError, match="expected at most 0"):
            add_attention(store, "default", count=2, overlap=1)


def accuracy(store: Store) -> dict[str, tuple[float | None, int]]:
    """The attention column."""
    return {
        each.annotator.name: (each.quality.attention.value, each.quality.attention.count)
        for each in people_of(store, "default").people
    }


def answered(store: Store) -> list[tuple[int, int, bool]]:
    """(judged, right, withdrawn) of each attention item."""
    found = attention_items(store, "default")
    return [(each.judged, each.right, each.withdrawn_since is not None) for each in found]


def test_who_judged_them_and_who_was_right_is_counted(store, queue):
    queue(*DIFFERENT)
    for who in ("ann", "bob"):
        judge_all(store, who, BEST_FIRST)
    (added,) = add_attention(store, "default", count=1, overlap=9)
    assert answered(store) == [(0, 0, False)]
    judge_all(store, "ann", BEST_FIRST)
    judge_all(store, "bob", BEST_LAST)
    store.add_annotator("eve")
    item = store.next_item("eve")
    store.submit(judge(item, "eve", verdict="skipped", ranking=None, reason="unsafe"))
    (found,) = attention_items(store, "default")
    assert (found.item_id, found.num_images) == (added, 3)
    assert answered(store) == [(2, 1, False)]
    exclude(store.database, "bob", project="default")
    assert answered(store) == [(1, 1, False)]
    store.undo("ann", store.history("ann", 1)[0].key)
    assert answered(store) == [(0, 0, False)]
    assert attention_items(store, "another") == []


def test_a_withdrawn_item_is_asked_of_nobody_until_it_is_brought_back(store, queue):
    queue(*DIFFERENT, overlap=1)
    ai = add_judge(store, JUDGE).annotator_id
    judge_all(store, "ann", BEST_FIRST)
    (added,) = add_attention(store, "default", count=1, overlap=9)
    before = {who: store.counts(who) for who in ("ann", "bob", ai)}
    held = store.next_item("bob")
    assert held.item_id == added
    withdraw(store, added, project="default")
    withdraw(store, added, project="default")
    assert [store.next_item(who) for who in ("ann", "bob")] == [None, None]
    assert [store.counts(who).left for who in ("ann", "bob", ai)] == [0, 0, 4]
    assert store.counts("bob").waiting == 0
    assert check_store(store).passed
    bring_back(store, added, project="default")
    bring_back(store, added, project="default")
    assert {who: store.counts(who) for who in before} == before
    assert store.next_item("bob") == held
    assert store.next_item("ann").item_id == added
    assert check_store(store).passed


def test_an_ai_judge_that_has_passed_a_withdrawn_item_is_asked_it_once_it_is_back(store, queue):
    queue(*DIFFERENT, overlap=1)
    ai = add_judge(store, JUDGE).annotator_id
    (added,) = add_attention(store, "default", count=1, overlap=1)
    judge_all(store, "ann", BEST_FIRST)  # nothing is open for people
    withdraw(store, added, project="default")
    while (item := store.next_item(ai)) is not None:
        assert item.item_id != added
        store.submit(judge(item, ai, answers=(Answer(0, 0, 1, None),)))
    bring_back(store, added, project="default")
    assert store.next_item(ai).item_id == added
    assert check_store(store).passed


def test_what_is_on_the_screen_or_taken_back_of_a_withdrawn_item_is_kept_and_not_asked(
    store, queue
):
    queue(*DIFFERENT)
    judge_all(store, "ann", BEST_FIRST)
    (added,) = add_attention(store, "default", count=1, overlap=1)
    item = store.next_item("ann")
    withdraw(store, added, project="default")
    sent = judge(item, ranking=on_screen(store, item, BEST_LAST))
    assert store.submit(sent).created
    assert accuracy(store)["ann"] == (None, 0)
    store.undo("ann", sent.key)
    assert store.next_item("ann") is None
    assert store.counts("ann").left == 0
    assert check_store(store).passed
    bring_back(store, added, project="default")
    assert store.next_item("ann").item_id == added


def test_judgements_of_a_withdrawn_item_tell_nothing_and_stay_on_record(store, queue):
    queue(*DIFFERENT)
    one, two = add_attention(store, "default", count=2, overlap=2, seed=0)
    judge_all(store, "ann", BEST_FIRST)
    judge_all(store, "bob", BEST_LAST)
    votes = {who: store.counts(who).done for who in ("ann", "bob")}
    before = readings(store)
    withdraw(store, two, project="default")
    assert accuracy(store) == {"ann": (1.0, 1), "bob": (0.0, 1)}
    assert {
        each.item_id: each.withdrawn_since is None for each in attention_items(store, "default")
    } == {one: True, two: False}
    assert {who: store.counts(who).done for who in votes} == votes
    assert len(store.history("bob")) == 6
    assert readings(store) == before
    assert check_store(store).passed
    bring_back(store, two, project="default")
    assert accuracy(store) == {"ann": (1.0, 2), "bob": (0.0, 2)}


def test_only_an_attention_item_of_the_project_is_withdrawn(store, queue):
    ordinary, *_ = queue(*DIFFERENT)
    (added,) = add_attention(store, "default", count=1, overlap=1)
    for item, project in ((ordinary, "default"), (added, "cats"), ("0" * 64, "default")):
        for act in (withdraw, bring_back):
            with pytest.raises(StoreError, match=f"item {item[:12]}: no attention item of project"):
                act(store, item, project=project)
    assert answered(store) == [(0, 0, False)]


def test_an_attention_item_is_made_no_gold_item(store, queue):
    queue(*DIFFERENT)
    (added,) = add_attention(store, "default", count=1, overlap=1)
    with pytest.raises(InputError, match=f"got attention item {added[:12]}, whose answer is known"):
        mark_gold(store, added, BEST_FIRST)
    assert gold_items(store, "default") == []


def test_that_an_item_is_withdrawn_travels_and_what_is_here_keeps_its_own(store, queue, tmp_path):
    queue(*DIFFERENT)
    one, _ = add_attention(store, "default", count=2, overlap=2, seed=0)
    judge_all(store, "ann", BEST_FIRST)
    withdraw(store, one, project="default")
    path = tmp_path / "export.jsonl"
    export_rankings(store, path)
    with Store.open(f"sqlite:///{tmp_path / 'b.db'}", images=tmp_path / "images") as other:
        import_rankings(other, path, images=tmp_path / "images")
        assert attention_items(other, "default") == attention_items(store, "default")
        assert accuracy(other) == accuracy(store)
        assert other.counts("bob").left == store.counts("bob").left
        assert check_store(other).passed
        export_rankings(other, tmp_path / "again.jsonl")
        assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
        bring_back(other, one, project="default")
        assert import_rankings(other, path, images=tmp_path / "images") == 0
        assert answered(other) == [(1, 1, False), (1, 1, False)]


def test_an_export_from_before_items_were_withdrawn_is_read(store, queue, tmp_path):
    queue(*DIFFERENT)
    add_attention(store, "default", count=1, overlap=2)
    path = tmp_path / "export.jsonl"
    export_rankings(store, path)
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert sum("withdrawn_at" in line for line in lines) == 5
    for line in lines:
        line.pop("withdrawn_at", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    with Store.open(f"sqlite:///{tmp_path / 'b.db'}", images=tmp_path / "images") as other:
        import_rankings(other, path, images=tmp_path / "images")
        assert attention_items(other, "default") == attention_items(store, "default")


def test_another_item_that_is_withdrawn_is_a_fault_and_is_not_imported(store, queue, tmp_path):
    queue("a red fox")
    moment = "'2026-11-22 00:00:00+00:00'"
    with store.database.write() as connection:
        connection.execute(text(f"UPDATE items SET withdrawn_at = {moment}"))
        connection.execute(text("UPDATE projects SET open = 0"))
    check = check_store(store)
    assert list(check.faults) == ["withdrawn items that are no attention items"]
    export_rankings(store, tmp_path / "export.jsonl")
    with (
        Store.open(f"sqlite:///{tmp_path / 'b.db'}", images=tmp_path / "images") as other,
        pytest.raises(InputError, match="expected no withdrawn_at, which only attention items"),
    ):
        import_rankings(other, tmp_path / "export.jsonl", images=tmp_path / "images")
