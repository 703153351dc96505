"""Fixtures of the evaluation's tests."""

from pathlib import Path

import pytest

from imgalign.runs.checkpoint import ADAPTER


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / ADAPTER).write_bytes(b"")
    return folder
