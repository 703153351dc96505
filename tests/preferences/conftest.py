import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import Clock
from databases import make_tables, new_database
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imgalign.preferences.records import Provenance
from imgalign.preferences.store import Store


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark tests that have a database: they alone are worth a run on a server."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "url" in item.fixturenames:
            item.add_marker(pytest.mark.database)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def png() -> Callable[..., bytes]:
    """A small PNG of noise; keyword arguments become text chunks."""

    def make(seed: int, **chunks: str) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        info = PngInfo()
        for key, value in chunks.items():
            info.add_text(key, value)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG", pnginfo=info)
        return out.getvalue()

    return make


@pytest.fixture
def provenance() -> Callable[..., Provenance]:
    def make(**fields: Any) -> Provenance:
        defaults: dict[str, Any] = {
            "model": "storybook",
            "prompt": "a red fox",
            "seed": 7,
            "steps": 10,
            "guidance_scale": 3.5,
            "scheduler": "DDIMScheduler",
            "eta": 0.0,
            "width": 8,
            "height": 8,
        }
        return Provenance(**(defaults | fields))

    return make


@pytest.fixture
def url(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new database; on the server that IMGALIGN_TEST_POSTGRES names, if there is one."""
    with new_database(tmp_path, tables="store" in request.fixturenames) as url:
        yield url


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    make_tables(url)
    with Store.open(url, images=tmp_path / "images") as store:
        store.add_annotator("ann", group="warm")
        store.add_annotator("bob", group="cool")
        yield store


@pytest.fixture
def add_items(
    store: Store, png: Callable[..., bytes], provenance: Callable[..., Provenance]
) -> Callable[..., list[str]]:
    """Queue items of three images each, with prompts "prompt 0", "prompt 1", ..."""

    def add(
        num: int,
        *,
        overlap: int = 1,
        num_images: int = 3,
        project: str = "default",
        first: int = 0,
    ) -> list[str]:
        item_ids = []
        for index in range(first, first + num):
            image_ids = [
                store.add_image(png(100 * index + k), provenance(seed=k)) for k in range(num_images)
            ]
            item_ids.append(
                store.add_item(
                    f"prompt {index}", image_ids, source="test", overlap=overlap, project=project
                )
            )
        return item_ids

    return add
