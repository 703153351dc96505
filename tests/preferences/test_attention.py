"""Attention items: built so that anybody gets them right, and out of all that learns or rates."""

from collections.abc import Callable
from typing import Any

import pytest
from submissions import judge, on_screen

from imgalign.errors import InputError
from imgalign.preferences.attention import add_attention
from imgalign.preferences.checking import check_store
from imgalign.preferences.coverage import judged_projects, project_standings
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.exclusions import exclude, include, num_left_out
from imgalign.preferences.makers import item_makers, rate_makers, read_makers
from imgalign.preferences.people import people_of
from imgalign.preferences.records import TieGroups
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
