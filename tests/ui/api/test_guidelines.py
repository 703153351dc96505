import pytest
from served_app import built
from starlette.testclient import TestClient

from imgalign.errors import InputError
from imgalign.preferences.guidelines import MOST_BYTES
from ui.api.guidelines import Guidelines
from ui.app import Settings


def test_the_text_is_as_the_file_is_now_and_the_last_one_where_it_is_gone(tmp_path):
    file = tmp_path / "guidelines.txt"
    file.write_text("\ufeffHands first.\n", encoding="utf-8")
    guidelines = Guidelines(file)
    assert guidelines.text() == "Hands first."
    file.write_text("Faces first.", encoding="utf-8")
    assert guidelines.text() == "Faces first."
    file.write_bytes(b"\xff\xfe\xff")
    assert guidelines.text() == "Faces first."
    file.unlink()
    assert guidelines.text() == "Faces first."


def test_without_a_file_there_are_none():
    assert Guidelines(None).text() == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"guidelines: .*: no such file"),
        (b"\xff\xfe", r"guidelines: .*: expected text in UTF-8; save it as such"),
        (b"x" * (MOST_BYTES + 1), rf"guidelines: .*: expected at most {MOST_BYTES} bytes"),
    ],
)
def test_a_file_that_is_no_short_text_is_refused_before_anything_is_made(tmp_path, content, said):
    file = tmp_path / "guidelines.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        Settings(guidelines=file, runs=tmp_path / "runs")


def test_annotators_get_the_text_and_not_where_it_lies(store, tmp_path):
    file = tmp_path / "guidelines.txt"
    file.write_text("Hands first.")
    folders = {"images": tmp_path / "images", "runs": tmp_path / "runs"}
    settings = Settings(**folders, guidelines=file, pages=("rank",))
    app = built(settings, store)
    file.unlink()
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        answer = client.get("/api/rank/guidelines")
    assert answer.json() == {"text": "Hands first."}
    assert str(tmp_path) not in f"{answer.headers}"
