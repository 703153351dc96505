"""Files that the app writes in the background, as a page asks for them, waits and takes them."""

from urllib.parse import unquote

from starlette.testclient import TestClient
from waiting import wait_for


def asked(client: TestClient, address: str, files: str) -> str:
    """Ask for a file at an address, and wait until it is written; where it lies below `files`."""
    begun = client.post(address)
    assert begun.status_code == 200, begun.text
    path = f"{files}/{begun.json()['file']}"

    def done() -> bool:
        answer = client.get(path)
        return answer.status_code != 200 or answer.json()["ready"]

    wait_for(done, seconds=240)  # an export is a process of its own
    return path


def taken(client: TestClient, address: str, files: str) -> tuple[str, bytes]:
    """The name and the content of a file."""
    answer = client.get(asked(client, address, files) + "/content")
    assert answer.status_code == 200, answer.text
    return unquote(answer.headers["content-disposition"].partition("''")[2]), answer.content
