"""Files that a scripted attacker sends: too large, hostile, or of another kind than they say."""

from urllib.parse import quote

from attempt import IMPORT, SCRIPT, Attempt, archive

from ui.loras import LARGEST as LARGEST_LORA
from ui.uploads import LARGEST_ARCHIVE, LARGEST_FILE, MOST_FILES

IMAGE = (
    b'{"kind": "image", "image_id": "../../../etc/passwd", "width": 1, "height": 1, '
    b'"num_bytes": 1, "added_at": "2026-11-22T00:00:00+00:00"}\n'
)
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
    *(
        Attempt(f"a bomb of many {what}", "POST", path, content=content, status=(422,))
        for what, path, content in (
            (
                "files",
                "/api/candidates/uploads/{upload}?name=a.zip",
                archive("1.png", 10, times=MOST_FILES + 1),
            ),
            (
                "LoRAs",
                "/api/loras?name=a.zip",
                archive("a.safetensors", 10, times=MOST_FILES + 1),
            ),
            (
                "settings",
                "/api/loras?name=a.zip",
                archive("adapter_config.json", 2 << 20, beside="a.safetensors"),
            ),
        )
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
