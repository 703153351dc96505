from pathlib import Path

import pytest
import torch
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen
from walk_runs import start

from imgalign.images import png
from imgalign.preferences.store import Store
from imgalign.train.data.encoded import VARIABLE


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """Six iterations without interruption; read only."""
    out = tmp_path_factory.mktemp("whole") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    start(out)
    torch.set_num_threads(before)
    return out


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five images with captions, one of them in a folder inside."""
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for number, colour in enumerate(["red", "blue", "green", "white", "black"]):
        place = images / "more" if number == 4 else images
        Image.new("RGB", (8, 4), colour).save(place / f"{colour}.png")
        (place / f"{colour}.txt").write_text(f"\ufeff\na {colour}\t house\n")
    return images


@pytest.fixture
def ranked_store(tmp_path) -> Path:
    """A database with three rankings of two images, the first candidate best, and one skipped.

    Image 0 or 1 of item n was generated from the seed 10 n or 10 n + 1.
    """
    path = tmp_path / "store" / "imgalign.db"
    path.parent.mkdir()
    with Store.open(path) as store:
        store.add_annotator("ann", group="cosy")
        for number in range(4):
            images = [
                store.add_image(
                    png(Image.new("RGB", (8, 8), (60 * number, 99 * each, 0))),
                    provenance(seed=10 * number + each),
                )
                for each in range(2)
            ]
            store.add_item(f"prompt {number}", images, source="test")
        for number in range(4):
            item = store.next_item("ann")
            if number == 3:
                store.submit(judge(item, ranking=None, verdict="skipped", reason="broken"))
            else:
                store.submit(judge(item, ranking=on_screen(store, item, ((0,), (1,)))))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Where runs keep encoded images, instead of the user's folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder
