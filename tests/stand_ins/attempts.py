"""What a scripted attacker, Mallory, tries on the app, each attempt by name. The victim is Ada."""

import re
from typing import Any
from urllib.parse import quote

from attempt import IMPORT, JSON, SCRIPT, Attempt, raw, submit
from attempts_with_files import HEADER, LORAS, RANKINGS, SENT, UPLOADS

from ui.api.security import LARGEST_BODY

FORMULA = "=cmd|'/c calc'!A0"
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
