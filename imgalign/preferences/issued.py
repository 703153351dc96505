"""The items behind the names under which annotators are shown them.

The id of an item is a digest of its project, prompt, source and samples in the order in which they
were queued. Whoever has the samples could guess the rest, such as the run that made them, and would
know by the id, or by a part of it, which guess is right. So annotators get no id. An item's name is
the token of the first candidate on their screen (`Item.issued_name`): random, and of them alone.
"""

from sqlalchemy import BindParameter, bindparam, select

from imgalign.preferences.identity import person
from imgalign.preferences.schema import views
from imgalign.preferences.shown import WHO, not_issued
from imgalign.preferences.store import Store

NAME: BindParameter[str] = bindparam("name")
NAMED = select(views.c.item_id).where(
    views.c.token == NAME, views.c.annotator_id == WHO, views.c.position == 0
)


def item_named(store: Store, name: str, annotator: str) -> str:
    """The id of an item by the name that this annotator has for it.

    NotIssuedError, and always the same, for a name of somebody else or of nothing. The id itself is
    such a name: else it could be guessed by trying.
    """
    who = person(annotator)
    with store.database.read() as connection:
        found = connection.execute(NAMED, {"name": name, "who": who}).scalar()
    if found is None:
        raise not_issued(who)
    return str(found)
