from pathlib import Path

import pytest
import torch
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
