"""What a scripted attacker, Mallory, tries on the app, each attempt by name. The victim is Ada."""

import io
import re
import zipfile
from copy import copy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ui.api.security import LARGEST_BODY
from ui.loras import LARGEST as LARGEST_LORA
from ui.uploads import LARGEST_ARCHIVE, LARGEST_FILE, MOST_FILES

JSON = {"Content-Type": "application/json"}
SCRIPT = "<img src=x onerror=alert(1)><script>alert(1)</script>"
FORMULA = "=cmd|'/c calc'!A0"
IMPORT = b'{"kind": "imgalign-rankings", "version": 1}\n'
IMAGE = (
    b'{"kind": "image", "image_id": "../../../etc/passwd", "width": 1, "height": 1, '
    b'"num_bytes": 1, "added_at": "2026-11-22T00:00:00+00:00"}\n'
)


@dataclass(frozen=True)
class Attempt:
    """One request; `{own}` and `{theirs}` are tokens, `{item}` and `{their_item}` names of items,
    `{item_id}` and `{never}` ids, and `{invitation}` and `{reset}` tokens of links.
    """

    name: str
    method: str
    path: str
    body: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: tuple[int, ...] = (400, 403, 404, 405, 409, 410, 413, 415, 422)


def submit(name: str, **changes: Any) -> Attempt:
    body = {
        "annotator": "Mallory",
        "key": "mallorys-key",
        "item": "{item}",
        "ranking": [[0], [1], [2], [3]],
        "verdict": "ranked",
    }
    return Attempt(name, "POST", "/api/rank/submit", body | changes)


def archive(
    member: str, size: int, *, says: int | None = None, times: int = 1, beside: str | None = None
) -> bytes:
    """A zip of zeros; it `says` of its file another size than it has.

    The file is in its table so many `times`. `beside` is a second file, of an export without
    rankings.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr(member, bytes(size))
        one = content.filelist[0]
        one.file_size = size if says is None else says
        for number in range(times - 1):
            again = copy(one)
            again.filename = f"{number}-{member}"
            content.filelist.append(again)
        if beside is not None:
            content.writestr(beside, IMPORT)
    return packed.getvalue()


def raw(name: str, content: bytes, path: str = "/api/rank/next") -> Attempt:
    return Attempt(name, "POST", path, content=content, headers=JSON)


OUT = ("../", "../imgalign.db", "../../etc/passwd", "/etc/passwd", ".hidden", "a\\b", "one\x00.png")
FILES = [
    Attempt(
        f"{what} {out!r}{' twice' if twice else ''}",
        "POST" if what.endswith(" of an export") else "GET",
        path.format(quote(quoted, "")),
    )
    for what, path in {
        "run": "/api/runs/{}/samples/step-1.png",
        "sample": "/api/runs/one/samples/{}",
        "picture of a reward": "/api/rewards/{}/picture",
        "image of a reward": "/api/rewards/one/images/{}",
        "image of another reward": "/api/rewards/{}/images/0",
        "run of an export": "/api/exports/{}/step-000001/kohya",
        "checkpoint of an export": "/api/exports/one/{}/kohya",
        "layout of an export": "/api/exports/one/step-000001/{}",
        "exported file": "/api/exports/{}",
        "content of an exported file": "/api/exports/{}/content",
        "generated image": "/api/generated/{}",
        "file of a generated image": "/api/generated/{}/file",
        "files": "/api/generated-files?ids={}",
        "item of a lead": "/api/people/items/{}/0",
        "candidate of a lead": "/api/people/items/" + "0" * 64 + "/{}",
        "candidates of a batch": "/api/candidates/{}/images/" + "0" * 64,
        "candidate": "/api/candidates/batch-1/images/{}",
        "token": "/api/rank/images/{}?annotator=Mallory",
        "small token": "/api/rank/images/small/{}?annotator=Mallory",
        "text": "/api/rank/texts/{}?annotator=Mallory",
        "small text": "/api/rank/texts/small/{}?annotator=Mallory",
        "page": "/{}",
        "file of gradio": "/static/{}",
        "asset of gradio": "/assets/{}",
        "svelte file of gradio": "/svelte/{}",
    }.items()
    for out in OUT
    for twice in (False, True)
    for quoted in ([quote(out, "")] if twice else [out])
]
TOKENS = [
    Attempt(
        "Ada's token under one's own name", "GET", "/api/rank/images/{theirs}?annotator=Mallory"
    ),
    Attempt("Ada's token, small", "GET", "/api/rank/images/small/{theirs}?annotator=Mallory"),
    Attempt("one's own token, altered", "GET", "/api/rank/images/{own}A?annotator=Mallory"),
    Attempt("a token of an image as a text", "GET", "/api/rank/texts/{own}?annotator=Mallory"),
    *(
        Attempt(f"Ada's token without a name: {folder}", "GET", f"/api/rank/{folder}/{{theirs}}")
        for folder in ("images", "images/small", "texts", "texts/small")
    ),
    Attempt("a vote without a name", "POST", "/api/rank/undo", {"key": "adas-own-key"}),
    Attempt(
        "a token and two names", "GET", "/api/rank/images/{theirs}?annotator=Ada&annotator=Mallory"
    ),
    Attempt("Ada's key", "POST", "/api/rank/undo", {"annotator": "Mallory", "key": "adas-own-key"}),
    Attempt("a key of nobody", "POST", "/api/rank/undo", {"annotator": "Mallory", "key": "x" * 20}),
    Attempt(
        "a page of votes from Ada's key",
        "POST",
        "/api/rank/votes",
        {"annotator": "Mallory", "before": "adas-own-key"},
    ),
    submit("an item of Ada's", item="{their_item}"),
    submit("the id of one's own item", item="{item_id}"),
    submit("an item never issued", item="{never}"),
    submit("an item that is none", item="0" * 64),
    submit("too many candidates", ranking=[[0], [1], [2], [3], [4]]),
    submit("a candidate twice", ranking=[[0], [0], [1], [2]]),
    submit("negative places", ranking=[[-1], [0], [1], [2]]),
    submit("places as text", ranking=[["0"], [1], [2], [3]]),
    submit("another display order", display_order=[3, 2, 1, 0]),
    submit("another time", created_at="1970-01-01"),
    submit("another verdict", verdict="gold"),
    submit("a reason of one's own", verdict="skipped", ranking=None, reason=SCRIPT),
    submit("a formula as a reason", verdict="skipped", ranking=None, reason="=cmd|'/c calc'!A0"),
    submit("a number beyond all", client_ms=10**400),
    submit("a short key", key="k"),
    submit("a long key", key="k" * 65),
    submit("a null byte in a key", key="mallorys\x00key"),
]
NAMES = [
    Attempt(f"a name with {what}", "POST", "/api/rank/next", {"annotator": name})
    for what, name in {
        "nothing": "",
        "61 characters": "x" * 61,
        "a null byte": "A\x00da",
        "only invisible characters": "\u200b\u200d",
        "a list": ["Ada"],
        "an operator": {"$ne": ""},
        "a number": 7,
    }.items()
]
BODIES = [
    raw("depth", b"[" * 100_000),
    raw("depth of objects", b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
    raw("a long number", b'{"annotator": ' + b"9" * 5000 + b"}"),
    raw("a large exponent", b'{"annotator": 1e999999}'),
    raw("not a number", b'{"annotator": NaN}'),
    raw("half a surrogate", b'{"annotator": "\\ud800"}'),
    raw("bytes that are no UTF-8", b"\xff\xfe"),
    raw("nothing", b""),
    raw("too much", b'"' + b"x" * LARGEST_BODY + b'"'),
    raw("too much for gradio", b"x" * (LARGEST_BODY + 1), "/gradio_api/queue/join"),
    raw(
        "the name of a file",
        b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "fn_index": 0}',
        "/gradio_api/queue/join",
    ),
    Attempt(
        "a false length",
        "POST",
        "/api/rank/next",
        content=b"{}",
        headers=JSON | {"Content-Length": "9" * 40},
    ),
    Attempt(
        "a form",
        "POST",
        "/api/rank/next",
        content=b"annotator=Eve",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    Attempt(
        "plain text",
        "POST",
        "/api/rank/next",
        content=b'{"annotator": "Eve"}',
        headers={"Content-Type": "text/plain"},
    ),
]
SITES = [
    Attempt(f"{name}: {path}", method, path, body, headers=headers)
    for method, path, body in (
        ("POST", "/api/rank/next", {"annotator": "Eve"}),
        ("POST", "/gradio_api/queue/join", {"data": []}),
        ("GET", "/api/rank/guidelines", None),
        ("GET", "/api/rank/queued", None),
        ("GET", "/api/people/items/0/0", None),
        ("GET", "/config", None),
        ("GET", "/train", None),
        ("GET", "/api/alive", None),
    )
    for name, headers in {
        "another origin": {"Origin": "https://evil.example"},
        "an origin of a file": {"Origin": "null"},
        "another port": {"Origin": "http://127.0.0.1:3000"},
        "embedded elsewhere": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        "embedded at another port": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        "framed elsewhere": {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "iframe",
        },
        "a rebound name": {"Host": "rebound.example:7860"},
        "a name that ends as ours": {"Host": "127.0.0.1.rebound.example"},
        "no name": {"Host": ""},
        "a forwarded name": {"X-Forwarded-Host": "rebound.example"},
    }.items()
]
GRADIO = [
    Attempt(f"{method} {path}", method, path, {} if method == "POST" else None)
    for method, path in (
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file/imgalign.db"),
        ("GET", "/gradio_api/proxy=https://example.com"),
        ("GET", "/gradio_api/stream/a/b/c/playlist.m3u8"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/gradio_api/deep_link?session_hash=1"),
        ("GET", "/gradio_api/upload_progress?upload_id=1"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/monitoring/a-key"),
        ("GET", "/pwa_icon"),
        ("GET", "/pwa_icon/512"),
        ("GET", "/logout"),
        ("GET", "/config/"),
        ("POST", "/login"),
        ("POST", "/login/"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/call/look"),
        ("GET", "/gradio_api/call/look/event"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/stream/event"),
        ("POST", "/gradio_api/stream/event/close"),
        ("POST", "/gradio_api/mcp/"),
        ("DELETE", "/api/rank/next"),
        ("PUT", "/api/rank/submit"),
        ("TRACE", "/api/rank/next"),
    )
]
LEADS = [
    Attempt(what, "GET", path, status=(404, 409, 422))
    for what, path in {
        "a candidate before the first": "/api/people/items/{item_id}/-1",
        "a candidate after the last": "/api/people/items/{item_id}/4",
        "a candidate that is no number": "/api/people/items/{item_id}/0%20OR%201",
        "an item by SQL": "/api/people/items/x'%20OR%20'1'='1/0",
        "guidelines of a project that there is not": "/api/rank/guidelines?project=x'%20OR%201=1",
        "guidelines without a name": "/api/rank/guidelines?project=",
        "guidelines of a null byte": "/api/rank/guidelines?project=%00",
    }.items()
]
UPLOADS = [
    Attempt(f"upload into {upload!r}", "POST", f"/api/candidates/uploads/{upload}?name=a.png")
    for upload in ("A" * 20, "A" * 19, "..%2F..%2Fimages", "x%00" + "A" * 17)
]
FULL, LIARS = 65 << 20, 3 << 30
"""Bytes: more than a file of an archive may have, and more than all of them together."""
SENT = [
    *(
        Attempt(
            f"{what}: {path}",
            "POST",
            path,
            content=b"",
            headers={"Content-Length": length},
            status=(413,),
        )
        for path, most in (
            ("/api/candidates/uploads/{upload}?name=a.zip", LARGEST_ARCHIVE),
            ("/api/people/rankings?name=a.zip", LARGEST_ARCHIVE),
            ("/api/loras?name=a.safetensors", LARGEST_LORA),
        )
        for what, length in (
            ("more than any file may have", f"{most + 1}"),
            ("a length without end", "9" * 40),
        )
    ),
    Attempt(
        "an image of more than it may have",
        "POST",
        "/api/candidates/uploads/{upload}?name=a.png",
        content=bytes(LARGEST_FILE + 1),
        status=(422,),
    ),
    *(
        Attempt(f"{what}, as {kind}", "POST", path, content=content, status=(422,))
        for kind, path, member, beside in (
            ("images", "/api/candidates/uploads/{upload}?name=a.zip", "1.png", None),
            ("rankings", "/api/people/rankings?name=a.zip", f"{'0' * 64}.png", "all.jsonl"),
            ("a LoRA", "/api/loras?name=a.zip", "a.safetensors", "adapter_config.json"),
        )
        for what, content in (
            ("a bomb of one file", archive(member, FULL, beside=beside)),
            ("a bomb that says it is small", archive(member, FULL, says=10, beside=beside)),
            ("a bomb that is too large in all", archive(member, 10, says=LIARS, beside=beside)),
            ("a bomb in a zip", archive("inner.zip", FULL)),
        )
    ),
    Attempt(
        "a bomb of many files",
        "POST",
        "/api/candidates/uploads/{upload}?name=a.zip",
        content=archive("1.png", 10, times=MOST_FILES + 1),
        status=(422,),
    ),
    Attempt(
        "a bomb of many LoRAs",
        "POST",
        "/api/loras?name=a.zip",
        content=archive("a.safetensors", 10, times=MOST_FILES + 1),
        status=(422,),
    ),
    Attempt(
        "a bomb of settings",
        "POST",
        "/api/loras?name=a.zip",
        content=archive("adapter_config.json", 2 << 20, beside="a.safetensors"),
        status=(422,),
    ),
]
"""What is larger than it may be, as it comes or once it is unpacked."""
RANKINGS = [
    *(
        Attempt(f"rankings {what}", method, f"/api/people/files{path}")
        for what, method, path in (
            ("of no project", "POST", "?kind=rankings"),
            ("of another kind", "POST", "?kind=..%2F..%2Frankings&project=default"),
            ("under a name of one's own", "GET", "/..%2F..%2Fimgalign.db/content"),
            ("that nobody asked for", "GET", "/" + "A" * 20 + "/content"),
            ("that nobody asked for, done", "GET", "/" + "A" * 20),
        )
    ),
    *(
        Attempt(f"{what} as rankings", "POST", f"/api/people/rankings{name}", content=content)
        for what, name, content in (
            ("a script", "?name=a.jsonl", SCRIPT.encode()),
            ("nothing", "?name=../../etc/passwd", b""),
            ("a file without a name", "", b"{}"),
            ("a line of an unknown kind", "?name=a", IMPORT + b'{"kind": "accounts"}\n'),
            ("an image of this machine", "?name=a", IMPORT + IMAGE),
            ("a deep file", "?name=a", b"[" * 100_000),
            ("no archive", "?name=../../a.zip", b"PK" + SCRIPT.encode()),
        )
    ),
]
HEADER = b'{"x.lora_A.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}'
LORAS = [
    *(
        Attempt(f"{what} as a LoRA", "POST", f"/api/loras{name}", content=content, status=(422,))
        for what, name, content in (
            (
                "a pickle",
                "?name=a.safetensors",
                b"\x80\x04cposix\nsystem\nX\x02\x00\x00\x00id\x85R.",
            ),
            ("a pickle by its name", "?name=a.pt", b"\x80\x04."),
            ("a script", f"?name={quote(SCRIPT)}.safetensors", SCRIPT.encode()),
            ("nothing", "?name=../../../etc/passwd.safetensors", b""),
            ("a file without a name", "", HEADER),
            ("a header without end", "?name=a.safetensors", (2**63).to_bytes(8, "little")),
            (
                "numbers beyond the file",
                "?name=a.safetensors",
                len(HEADER).to_bytes(8, "little") + HEADER,
            ),
            ("a deep header", "?name=a.safetensors", (10**5).to_bytes(8, "little") + b"[" * 10**5),
            (
                "a file outside of a zip",
                "?name=../../a.zip",
                archive("../../../a.safetensors", 10),
            ),
            ("a run", "?name=one%2Fstep-000001", b"x"),
        )
    ),
]
SESSIONS = [
    Attempt(what, "POST", f"/api/{path}", body, status=status)
    for what, path, body, status in (
        ("login by SQL", "login", {"name": "' OR 1=1 --", "password": "' OR 1=1 --"}, (401,)),
        ("login of an annotator", "login", {"name": "Ada", "password": ""}, (401,)),
        ("login as several", "login", {"name": ["Ada"], "password": "x"}, (422,)),
        ("login with more", "login", {"name": "Ada", "password": "x", "role": "admin"}, (422,)),
        ("login with a book", "login", {"name": "Ada", "password": "x" * 201}, (422,)),
        ("guessed invitation", "invitation", {"token": "x"}, (404,)),
        ("no invitation", "join", {"token": "", "name": "M", "password": "of my own 42"}, (409,)),
        ("projects of several", "rank/projects", {"annotator": ["Ada", "Mallory"]}, (422,)),
        ("somebody's session", "logout", {"account": "Ada"}, (200,)),
    )
]
OTHER = "of my own 42"
PASSWORDS = [
    Attempt(what, "POST", f"/api/{path}", body)
    for what, path, body in (
        ("guessed reset link", "reset-link", {"token": "x"}),
        ("reset link by SQL", "reset-link", {"token": "' OR '1'='1"}),
        ("reset link of several", "reset-link", {"token": ["x", "y"]}),
        ("no reset link", "reset", {"token": "", "password": OTHER}),
        ("invitation as a reset link", "reset", {"token": "{invitation}", "password": OTHER}),
        ("reset link of Ada", "reset", {"token": "x", "password": OTHER, "name": "Ada"}),
        ("reset with a book", "reset", {"token": "x", "password": "x" * 201}),
        ("reset link to join by", "join", {"token": "{reset}", "name": "M", "password": OTHER}),
        ("password without the old one", "password", {"password": OTHER}),
        ("password by a wrong old one", "password", {"old": "wrong", "password": OTHER}),
        ("password of Ada", "password", {"old": "x", "password": OTHER, "name": "Ada"}),
    )
]
ATTEMPTS = [
    *(*FILES, *TOKENS, *NAMES, *BODIES, *SITES, *GRADIO, *LEADS, *UPLOADS, *SENT, *RANKINGS),
    *(*LORAS, *PASSWORDS),
    *SESSIONS,
]
AS_ANNOTATOR = [
    *(
        Attempt(f"rank/{path} as Ada", "POST", f"/api/rank/{path}", {"annotator": "Ada", **more})
        for path, more in (
            ("next", {}),
            ("votes", {}),
            ("projects", {}),
            ("undo", {"key": "adas-own-key"}),
            ("submit", {"key": "mallorys-key", "item": "{their_item}", "verdict": "all_bad"}),
        )
    ),
    Attempt("Ada's token as Ada", "GET", "/api/rank/images/{theirs}?annotator=Ada"),
    *(
        Attempt(f"rank/{path} of a closed project", "POST", f"/api/rank/{path}", body)
        for path in ("next", "votes")
        for body in [{"annotator": "Mallory", "project": "closed"}]
    ),
    Attempt("guidelines of a closed project", "GET", "/api/rank/guidelines?project=closed"),
    *(
        Attempt(f"the page {path}", "GET", path, headers={"Accept": "text/html"})
        for page in ("candidates", "people", "learn", "train", "generate", "results")
        for path in (f"/{page}", f"/{page}/")
    ),
    Attempt("what all pages offer", "GET", "/config"),
    *(
        Attempt(f"event {number}", "POST", "/gradio_api/queue/join", {**event, "fn_index": number})
        for number in (0, 10, 50)
        for event in [{"data": [], "session_hash": "mine"}]
    ),
    Attempt("what events say", "GET", "/gradio_api/queue/data?session_hash=mine"),
    Attempt("a heartbeat", "GET", "/gradio_api/heartbeat/mine"),
    Attempt("an end of events", "POST", "/gradio_api/cancel", {"session_hash": "mine"}),
    Attempt("a candidate of a lead", "GET", "/api/people/items/{item_id}/0"),
    Attempt("an upload", "POST", "/api/candidates/uploads"),
    *(
        Attempt(f"{kind} of a project", "POST", f"/api/people/files?kind={kind}&project=default")
        for kind in ("rankings", "rankings_and_images", "pairs", "hpd_v3")
    ),
    Attempt("a file of rankings", "GET", "/api/people/files/" + "A" * 20 + "/content"),
    Attempt("a LoRA", "POST", "/api/loras?name=a.safetensors", content=HEADER),
    Attempt("rankings of their own", "POST", "/api/people/rankings?name=a.jsonl", content=IMPORT),
    Attempt("the name of the server", "GET", "/api/alive"),
]
"""More that is for leads, or for Ada, where Mallory has an account."""


def fill(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {key: fill(each, words) for key, each in value.items()}
    return value
