from pathlib import Path

import pytest
import torch
from PIL import Image
from walk_runs import start


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
        (place / f"{colour}.txt").write_text(f"\ufeffa {colour}\n house\n")
    return images
