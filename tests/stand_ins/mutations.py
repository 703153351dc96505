"""Strategies of hypothesis: bytes and JSON values as disks, editors and strangers damage them."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

WORDS = (
    "",
    " ",
    "a",
    "null",
    "~",
    "\n",
    "a\nb",
    "\u2028",
    "\x00",
    "é",
    "🦊",
    "\ufeff",
)
NUMBERS = (0, 1, -1, 2**31, 2**53, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308)


TEXTS = st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), max_size=20)
"""Any text in Unicode, and some that is often forgotten."""

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(-100, 100), st.floats(), TEXTS
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(TEXTS, SCALARS, max_size=3)
"""Of JSON and YAML."""


@st.composite
def damaged(draw: st.DrawFn, content: bytes, *, most: int = 3) -> bytes:
    """Bytes, some of them flipped, replaced, doubled, put in, or the end cut off."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(len(found) - 1, 0)))
        end = min(len(found), place + draw(st.integers(1, 8)))
        match draw(st.sampled_from(["flip", "cut", "remove", "double", "put", "replace"])):
            case "flip" if found:
                found[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del found[place:]
            case "remove":
                del found[place:end]
            case "double":
                found[place:place] = found[place:end]
            case "put":
                found[place:place] = draw(st.binary(min_size=1, max_size=8))
            case _:
                found[place:end] = draw(st.binary(min_size=end - place, max_size=end - place))
    return bytes(found)


Keys = tuple[str | int, ...]


def places_in(value: Any, above: Keys = ()) -> list[Keys]:
    """Where the values of nested lists and objects are; the outermost one is not among them."""
    inner = list(value.items()) if isinstance(value, dict) else []
    inner = list(enumerate(value)) if isinstance(value, list) else inner
    return [
        place for key, each in inner for place in [(*above, key), *places_in(each, (*above, key))]
    ]


def inside(value: Any, place: Keys) -> Any:
    for key in place:
        value = value[key]
    return value


@st.composite
def changed(draw: st.DrawFn, value: Any, *, most: int = 3) -> tuple[Any, list[Keys]]:
    """A value some of whose parts are another, gone, moved or new; and where it was changed."""
    found, where = copy.deepcopy(value), []
    for _ in range(draw(st.integers(1, most))):
        places = places_in(found)
        if not places:
            break
        place = draw(st.sampled_from(places))
        holder, key = inside(found, place[:-1]), place[-1]
        match draw(st.sampled_from(["set", "set", "remove", "copy", "add"])):
            case "remove":
                del holder[key]
            case "copy":
                holder[key] = copy.deepcopy(inside(found, draw(st.sampled_from(places))))
            case "add" if isinstance(holder, dict):
                place = (*place[:-1], draw(TEXTS))
                holder[place[-1]] = draw(VALUES)
            case _:
                holder[key] = draw(VALUES)
        where.append(place)
    return found, where


def as_json(value: Any) -> str:
    """With the numbers that JSON has not, as Python writes them."""
    return json.dumps(value, ensure_ascii=False)
