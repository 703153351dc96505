"""Rankings of images apart from those of texts, for what can use one kind only."""

import logging
from collections.abc import Iterable

from imgalign.errors import InputError
from imgalign.preferences.records import Ranking, Samples

log = logging.getLogger(__name__)


def rankings_of(
    samples: Samples, rankings: Iterable[Ranking], *, where: str = "rankings"
) -> list[Ranking]:
    """The rankings of this kind, in order; the log says how many others are left out.

    InputError, which begins with `where`, if there are some and all are of the other kind.
    """
    found = list(rankings)
    kept = [ranking for ranking in found if ranking.samples == samples]
    num_others = len(found) - len(kept)
    other = "texts" if samples == "images" else "images"
    if num_others and not kept:
        raise InputError(
            f"{where}: expected rankings of {samples}, got {num_others} of {other}; choose a "
            f"project whose items are {samples}, or rank some first"
        )
    if num_others:
        log.warning("%s: %d of %s are left out", where, num_others, other)
    return kept
