"""Names of models as they may be shown: of the hub, and of folders and files their last part."""

import re
from pathlib import Path

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def hub_name(model: str) -> str | None:
    """The model's name on the hub; None for the shipped one, and for a folder or file here."""
    return model if HUB_ID.fullmatch(model) and not Path(model).exists() else None


def public_name(model: str) -> str:
    """The name of a model without the folders of this machine."""
    return hub_name(model) or Path(model).name or model
