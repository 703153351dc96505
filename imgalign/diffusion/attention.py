"""xformers where it works, PyTorch's own attention everywhere else.

The compiled part of xformers fits one release of PyTorch only. A package that does not fit would
break the import of diffusers, or fail in the middle of a run; here it is found out early, said
once, and done without.
"""

import functools
import importlib
import importlib.util
import logging
import sys
from typing import Literal

from imgalign.errors import first_line

log = logging.getLogger(__name__)

Attention = Literal["sdpa", "xformers"]


def hide_broken_xformers() -> None:
    """Keep diffusers from an installed xformers that cannot be imported with this PyTorch."""
    if importlib.util.find_spec("xformers") is None:
        return
    try:
        importlib.import_module("xformers.ops")
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "xformers"]:
            del sys.modules[name]
        sys.modules["xformers"] = None  # type: ignore[assignment]  # python's "not importable"
        warn_once(first_line(error))


@functools.cache
def warn_once(reason: str) -> None:
    """Say that xformers is not used, once per reason."""
    log.warning("xformers: not usable here, using PyTorch's attention instead: %s", reason)
