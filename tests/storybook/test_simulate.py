"""Simulated annotators on a real store: whom there is, and that stopping them changes nothing."""

import pytest
import torch
from provenances import provenance

from imgalign.errors import InputError
from imgalign.images import png, to_image
from imgalign.preferences.store import Store
from imgalign.storybook import simulate
from imgalign.storybook.annotators import Impression
from imgalign.storybook.simulate import annotators_of, rank_queue

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
