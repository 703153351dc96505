"""The files of results: what was measured, with the command, the hardware and the versions."""

import json
from pathlib import Path

from imgalign.evaluate.origin import hardware, library_versions


def record(file: Path, command: str, **facts: object) -> None:
    """Write facts as JSON, with where they come from."""
    origin = {"command": command, "hardware": hardware(), "versions": library_versions()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(origin | facts, indent=1) + "\n", encoding="utf-8")
