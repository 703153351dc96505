"""An asker whose votes are known: it says in which rounds the trained model is preferred."""

from collections.abc import Sequence

from submissions import judge

from imgalign.preferences.records import Item, TieGroups
from imgalign.preferences.store import Store


class Partisan:
    """Ranks candidates by what the store shows first, and votes as it was told, in every pair.

    It answers by the calls of the app, so what it says is in the store as people's answers are.
    """

    def __init__(self, prefers: Sequence[bool], *, name: str = "ann") -> None:
        self.prefers = prefers
        self.name = name
        self.asked: list[tuple[str, str]] = []
        self.num_answers = 0

    @property
    def overlap(self) -> int:
        return 1

    def ask(self, store: Store, *, project: str, source: str) -> None:
        self.asked.append((project, source))
        store.add_annotator(self.name)
        while (item := store.next_item(self.name, project=project)) is not None:
            self.num_answers += 1
            ranking = self.voted(store, item, source) if "compare" in project else None
            answer = judge(item, self.name) if ranking is None else None
            store.submit(answer or judge(item, self.name, ranking=ranking))

    def voted(self, store: Store, item: Item, source: str) -> TieGroups:
        """The trained side of a pair is its second candidate."""
        order = store.display_order(item.item_id, self.name)
        after, before = order.index(1), order.index(0)
        better = self.prefers[int(source.removeprefix("round-")) - 1]
        return ((after,), (before,)) if better else ((before,), (after,))
