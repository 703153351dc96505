"""Opening a store for a command: an existing one, or a new one where that was asked for."""

from collections.abc import Callable
from pathlib import Path

from imgalign.preferences import address
from imgalign.preferences.database import check_usable
from imgalign.preferences.store import Store


def check_place(url: str | None, *, images: Path | None, create: bool) -> None:
    """Refuse before slow work a store that `open_or_make` would refuse; makes nothing."""
    if create or _nothing_named(url, images):
        check_usable(address.chosen(url), images=images)
    else:
        Store.open(url, images=images, create=False).close()


def _nothing_named(url: str | None, images: Path | None) -> bool:
    return images is None and not address.named(url)


def open_or_make(
    url: str | None, *, images: Path | None, create: bool, on_made: Callable[[str], object]
) -> Store:
    """Open a store; create it with `create`, or where neither database nor images are named."""
    store = Store.open(url, images=images, create=create or _nothing_named(url, images))
    if store.is_new:
        on_made(f"new database {store.database.name}, images in {store.images.root}")
    return store
