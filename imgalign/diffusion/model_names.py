"""Whether two names are of one model of images: the shipped one, one on the hub, or one here."""

import re
from pathlib import Path

from imgalign.runs.folder import SHIPPED
from imgalign.runs.model_names import hub_name

STORYBOOK = Path(__file__).parents[1] / "storybook" / "assets" / "pipeline"
CACHED = re.compile(r".*/models--([\w.-]+)--([\w.-]+)/snapshots/[^/]+/?")
"""A folder of the hub's cache: the owner and the name of the model that is in it."""


def same_model(one: str, other: str) -> bool:
    """Whether two names are of one model, as far as names tell.

    Folders and files are compared by where they really are, a folder of the hub's cache as the
    model on the hub. A folder that is not here, such as one of another machine, has only its own
    name to go by.
    """
    names = [_hub_model(each) for each in (one, other)]
    if None not in names:
        return names[0] == names[1]
    places = [_place(each) for each in (one, other)]
    if names == [None, None] and all(place.exists() for place in places):
        return places[0] == places[1]
    return places[0].name == places[1].name


def _hub_model(model: str) -> str | None:
    cached = CACHED.fullmatch(_place(model).as_posix())
    return f"{cached[1]}/{cached[2]}" if cached else hub_name(model)


def _place(model: str) -> Path:
    return STORYBOOK if model == SHIPPED else Path(model).expanduser().resolve()
