"""Claims: whatever is sent to the events of the pages, past the pages, gives nothing away of this
machine, leaves no file behind, and starts, stores and makes nothing.

The events are those of Gradio's own configuration, each with values that its inputs never have.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_events import sent, told

pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
STRANGE = ({"done": "<script>", "path": "/etc/passwd"}, 10**30, [["<script>"], ["\x00"]], True)
FORGED: dict[str, Callable[[int], list[Any]]] = {
    "nothing": lambda count: [None] * count,
    "long paths": lambda count: ["../../etc/passwd" * 1000] * count,
    "other types": lambda count: [STRANGE[place % len(STRANGE)] for place in range(count)],
}
"""Values of an event with so many inputs."""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Gradio puts copies of files."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def client(kept: Path, address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as found:
        yield found


def outcome(client: httpx.Client, event: dict[str, Any], values: list[Any], session: str) -> str:
    """What an event says of such values, in all its messages."""
    asked = sent(client, event, values, session=session, data=STRANGE[0])
    return told(client, session=session) if asked.status_code == 200 else asked.text


def everything(folder: Path) -> dict[str, int]:
    """Files and folders below, with their sizes; a database's own log may grow by reading."""
    return {
        str(path.relative_to(folder)): path.stat().st_size if path.is_file() else 0
        for path in folder.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    }


def test_no_event_takes_what_a_page_would_not_send(client: httpx.Client, tmp_path: Path):
    found = client.get("/config").json()["dependencies"]
    events = [each for each in found if each["backend_fn"]]
    assert len(events) > 60
    before = everything(tmp_path)
    for number, event in enumerate(events):
        for what, values in FORGED.items():
            given = values(len(event["inputs"]))
            said = outcome(client, event, given, f"session-{number}-{what}")
            name = f"{event['id']} {event['api_name']}, {what}"
            assert "Traceback" not in said, name
            assert str(tmp_path) not in said, name
            assert "root:" not in said, name
            assert '"success":false' in said or "<script>" not in said, name
    assert everything(tmp_path) == before


@pytest.mark.parametrize("spelt", ["gradio.FileData", "gradio\\u002eFileData"])
def test_the_name_of_a_file_is_refused_before_gradio_copies_it(
    client: httpx.Client, kept: Path, spelt: str
):
    event = next(each for each in client.get("/config").json()["dependencies"] if each["inputs"])
    body = {
        "data": [FILE] * len(event["inputs"]),
        "fn_index": event["id"],
        "session_hash": "mine",
    }
    content = json.dumps(body).replace("gradio.FileData", spelt)
    asked = client.post(
        "/gradio_api/queue/join", content=content, headers={"Content-Type": "application/json"}
    )
    assert (asked.status_code, asked.json()) == (
        422,
        {"error": "expected values of the page, got the name of a file"},
    )
    assert not kept.exists()
