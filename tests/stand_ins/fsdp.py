"""Which releases of torch can share weights."""

import pytest
from torch.distributed.fsdp import FSDPModule

with_fsdp = pytest.mark.skipif(
    not hasattr(FSDPModule, "set_custom_all_gather"), reason="this torch refuses to share weights"
)
