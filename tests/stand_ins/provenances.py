"""A provenance for tests that need one and do not care which."""

from typing import Any

from imgalign.preferences.records import Provenance

FACTS: dict[str, Any] = {
    "model": "m",
    "prompt": "a cat",
    "seed": 0,
    "steps": 1,
    "guidance_scale": 1.0,
    "scheduler": "ddim",
    "eta": 0.0,
    "width": 8,
    "height": 8,
}


def provenance(**facts: Any) -> Provenance:
    """`FACTS`, except for what is given."""
    return Provenance(**(FACTS | facts))
