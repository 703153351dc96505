"""Where a database is: URLs, paths, and what is never said of them."""

import sys
from pathlib import Path

import pytest

from imgalign.errors import ImgalignError, InputError, StoreError
from imgalign.preferences.address import URL_VARIABLE, parse, shown
from imgalign.preferences.store import Store


def test_the_url_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(URL_VARIABLE, f"sqlite:///{tmp_path / 'elsewhere.db'}")
    with Store.open(images=tmp_path / "images") as store:
        assert store.database.name == str(tmp_path / "elsewhere.db")
    assert (tmp_path / "elsewhere.db").exists()


def test_a_relative_url_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with Store.open("sqlite:///x.db", images=Path("images")) as store:
        monkeypatch.chdir(tmp_path / "b")
        store.add_annotator("ann")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_folder_name_with_percent_hash_and_question_mark_is_only_a_name(tmp_path: Path):
    folder = tmp_path / "50% of #1?"
    folder.mkdir()
    url = f"sqlite:///{folder / 'my store.db'}".replace("%", "%25").replace("?", "%3F")
    for _ in range(2):
        with Store.open(url, images=folder / "images") as store:
            store.add_annotator("ann")
    assert {path.name for path in folder.iterdir()} == {"my store.db", "images"}


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("sqlite://", InputError, "in-memory database forgets"),
        ("sqlite:///:memory:", InputError, "in-memory database forgets"),
        ("imgalign.db", InputError, "expected a URL such as"),
        ("nosuchdatabase://host/name", InputError, "expected a URL such as"),
        ("postgresql://me:pw@host:port/name", InputError, "expected a URL such as"),
        ("sqlite://imgalign.db", InputError, "three slashes"),
        ("sqlite:///file:imgalign.db?mode=ro&uri=true", InputError, "not a file: URI"),
        ("sqlite:///x?mode=memory", InputError, "in-memory database forgets"),
        ("sqlite:////nowhere/at/all/imgalign.db", StoreError, "/nowhere/at/all: no such folder"),
        ("sqlite:////tmp", StoreError, "expected a database file, got a folder"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_clear_line(
    tmp_path: Path, url: str, kind: type[ImgalignError], message: str
):
    with pytest.raises(kind, match=message):
        Store.open(url, images=tmp_path / "images")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@127.0.0.1:1/name",
        "postgresql://me:s3cret@127.0.0.1:port/name",
        "postgres://me:s3cret@host/name",
        "postgresql//me:s3cret@host/name",
        "me:s3cret@host",
        "mysql://me:s3cret@host/name",
        "postgresql+psycopg://me@127.0.0.1:1/name?password=s3cret",
        "mssql+nosuchdriver://me:s3cret@host/name?driver=x&sslpassword=s3cret",
        "postgresql+psycopg://me:x@s3cret@127.0.0.1:1/name",
        "postgresql+psycopg://me:x@y/s3cret@127.0.0.1:1/name",
        "postgresql+psycopg://me@127.0.0.1:1/name?conninfo=password%3Ds3cret",
        "postgresql+nosuchdriver://me@127.0.0.1:1/name?conninfo=password%3Ds3cret",
        "nosuchbackend://host/name?options=s3cret",
        "nosuchbackend://host/name?password=x@s3cret",
        "postgresql://host:port/name?password=s3cret",
        "postgresql://host:port/name?password=x@s3cret",
        "postgresql://me:x@y?s3cret@host/name",
        "sqlite://me:s3cret@host/name",
    ],
)
def test_a_password_is_never_said(tmp_path: Path, url: str):
    with pytest.raises(ImgalignError) as raised:
        Store.open(url, images=tmp_path / "images")
    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:pw@host:5/name", "postgresql://me:***@host:5/name"),
        ("postgresql://me:p@w@host/name", "postgresql://***@host/name"),
        (
            "postgresql://host/name?sslmode=require&passfile=x",
            "postgresql://host/name?sslmode=require&passfile=***",
        ),
        ("sqlite:////data/me@home.db", "sqlite:////data/me%40home.db"),
    ],
)
def test_what_is_no_secret_is_shown(url: str, expected: str):
    assert shown(url) == expected


def test_an_at_sign_that_may_be_a_passwords_is_refused_with_how_to_write_it():
    for url in ("postgresql://me:p@w@host/name", "postgresql://host/name?password=p@w"):
        with pytest.raises(InputError, match="as %40"):
            parse(url)


def test_a_driver_that_is_missing_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'psycopg\[binary\]'"):
        Store.open("postgresql://me:pw@host/name", images=tmp_path / "images")


def test_a_question_mark_in_a_path_is_part_of_the_name(tmp_path: Path):
    (tmp_path / "what?").mkdir()
    with Store.open(f"sqlite:///{tmp_path}/what?/is it?.db") as store:
        store.add_annotator("ann")
    assert {path.name for path in tmp_path.iterdir()} == {"what?"}
    assert (tmp_path / "what?" / "is it?.db").is_file()


def test_a_path_can_be_given_whatever_its_characters(tmp_path: Path):
    folder = tmp_path / "50%41 of #1?"
    folder.mkdir()
    with Store.open(folder / "x.db") as store:
        assert store.database.path == folder / "x.db"
    assert {path.name for path in folder.iterdir()} == {"x.db", "images"}
