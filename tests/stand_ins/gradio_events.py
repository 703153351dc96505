"""Events of the app's pages, sent as a browser sends them, past the pages."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx


def sent(
    client: httpx.Client,
    event: Mapping[str, Any],
    values: Sequence[Any],
    *,
    session: str,
    data: Mapping[str, Any] | None = None,
) -> httpx.Response:
    """The answer to an event of gradio's configuration, with such values and event data."""
    body = {
        "data": list(values),
        "fn_index": event["id"],
        "session_hash": session,
        "event_data": data or {},
    }
    return client.post("/gradio_api/queue/join", json=body)


def told(client: httpx.Client, *, session: str) -> str:
    """All that the server says in a session, until its event is over."""
    said = ""
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
        for line in lines.iter_lines():
            said += line
            if '"process_completed"' in line or '"close_stream"' in line:
                break
    return said
