"""Simulated annotators on a real store: whom there is, and that stopping them changes nothing."""

import pytest
import torch
from provenances import provenance
from texts import add_texts

from imgalign.errors import InputError
from imgalign.images import png, to_image
from imgalign.preferences.store import Store
from imgalign.storybook import simulate
from imgalign.storybook.annotators import Impression
from imgalign.storybook.drawing import draw_prompt
from imgalign.storybook.simulate import annotators_of, rank_queue
from imgalign.storybook.text_oracle import text_utility

NUM_ITEMS = 5


def seen(store, item, annotator):
    """Impressions that follow from the item alone, without the verifier's network."""
    noise = torch.Generator().manual_seed(int(item.item_id[:8], 16))
    worth = torch.rand(len(item.tokens), generator=noise).tolist()
    return [Impression(faithfulness=0.9, taste=each) for each in worth]


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "candidate_impressions", seen)

    def opened(name: str) -> Store:
        store = Store.open(f"sqlite:///{tmp_path}/{name}.db", images=tmp_path / name, seed=0)
        for number in range(NUM_ITEMS):
            noise = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(number))
            made = provenance(seed=number)
            ids = [store.add_image(png(to_image(each)), made) for each in noise]
            store.add_item(f"a cat {number}", ids, source="test", overlap=2)
        return store

    return opened


def test_an_unknown_group_names_those_there_are():
    with pytest.raises(InputError, match="expected one of cosy, dreamy, graphic, got 'nonsense'"):
        annotators_of("nonsense", 2, seed=0)


def test_simulated_annotators_are_marked_in_the_store(queue):
    with queue("store") as store:
        rank_queue(store, annotators_of("cosy", 1, seed=0))
        store.add_annotator("ann", group="cosy")
        kinds = {annotator.name: annotator.simulated for annotator in store.annotators()}
        assert kinds == {"cosy-1": True, "ann": False}
        assert all(ranking.simulated for ranking in store.rankings())


def test_ranking_that_was_stopped_ends_as_if_it_had_not_been(queue):
    annotators = annotators_of("cosy", 2, seed=0)
    with queue("whole") as store:
        whole = rank_queue(store, annotators)

    def stop(share: float) -> None:
        if share >= 0.6:
            raise KeyboardInterrupt

    with queue("stopped") as store:
        with pytest.raises(KeyboardInterrupt):
            rank_queue(store, annotators, on_progress=stop)
        assert 0 < len(list(store.rankings())) < 2 * NUM_ITEMS
        assert rank_queue(store, annotators) == whole
        assert rank_queue(store, annotators) == whole  # also with nothing left
    assert whole.num_rankings + whole.num_all_bad + whole.num_skipped == 2 * NUM_ITEMS


def test_texts_are_ranked_by_what_they_keep_of_the_idea(tmp_path):
    texts = ("a dog", "a red cat in the snow", "a red cat in the snow, in the snow", "zzz")
    with Store.open(tmp_path / "imgalign.db", seed=0) as store:
        item = add_texts(store, texts, prompt="a red cat", overlap=3)
        done = rank_queue(store, annotators_of("cosy", 3, seed=0))
        assert done.utilities[item] == pytest.approx(
            text_utility(["a red cat"] * 4, texts, group="cosy").tolist(), rel=1e-6
        )
        rankings = list(store.rankings())
    assert [(each.samples, each.simulated) for each in rankings] == [("texts", True)] * 3
    assert [each.ranking[0] for each in rankings] == [(1,)] * 3
    assert len({each.order for each in rankings}) > 1


def test_images_and_texts_of_one_queue_are_ranked_each_by_its_oracle(tmp_path):
    prompts = ("a red cat in the snow", "a blue house at night")
    drawn = [png(draw_prompt(prompt, seed=0, size=64)) for prompt in prompts]
    with Store.open(tmp_path / "imgalign.db") as store:
        ids = [store.add_image(each, provenance()) for each in drawn]
        store.add_item(prompts[0], ids, source="test")
        add_texts(store, prompts[::-1], prompt="a red cat")
        rank_queue(store, annotators_of("cosy", 1, seed=0))
        found = [(each.samples, each.ranking) for each in store.rankings()]
    assert found == [("images", ((0,), (1,))), ("texts", ((1,), (0,)))]


def test_texts_of_a_prompt_that_is_no_idea_are_refused_in_one_line(tmp_path):
    with Store.open(tmp_path / "imgalign.db") as store:
        add_texts(store, ("x", "y"), prompt="write a poem")
        with pytest.raises(InputError, match="'write a poem' is not a storybook idea") as raised:
            rank_queue(store, annotators_of("cosy", 1, seed=0))
        assert "\n" not in str(raised.value)
        assert list(store.rankings()) == []
