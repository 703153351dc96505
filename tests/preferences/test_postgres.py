"""What differs on a database server; all other tests of the store run there as well.

`IMGALIGN_TEST_POSTGRES` is the SQLAlchemy URL of a server on which databases may be made.
"""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from provenances import provenance
from sqlalchemy import make_url, text

from imgalign.errors import StoreError
from imgalign.preferences.store import Store

pytestmark = pytest.mark.skipif(
    "IMGALIGN_TEST_POSTGRES" not in os.environ,
    reason="IMGALIGN_TEST_POSTGRES names no PostgreSQL server to make databases on",
)
Png = Callable[..., bytes]


def test_a_database_without_a_store_is_not_filled_unless_asked_for(url: str, tmp_path: Path):
    with pytest.raises(StoreError, match=r"holds no rankings and no queue; check the name"):
        Store.open(url, images=tmp_path / "images", create=False)
    with Store.open(url, images=tmp_path / "images") as store:
        assert store.is_new
        with store.database.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM rankings")).scalar() == 0


def test_a_database_that_is_not_there_is_one_line_without_the_password(url: str, tmp_path: Path):
    nowhere = make_url(url).set(database="nowhere", password="s3cret")
    with pytest.raises(StoreError, match="nowhere") as raised:
        Store.open(nowhere.render_as_string(hide_password=False), images=tmp_path / "images")
    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_images_are_remembered_by_their_full_path(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    Store.open(url).close()
    monkeypatch.chdir(tmp_path / "b")
    with Store.open(url) as store:
        assert store.images.root == tmp_path / "a" / "images"


def test_another_machine_may_reach_the_images_by_another_path(url: str, tmp_path: Path, png: Png):
    with Store.open(url, images=tmp_path / "here") as store:
        image = store.add_image(png(1), provenance())
    (tmp_path / "here").rename(tmp_path / "mounted elsewhere")
    with Store.open(url, images=tmp_path / "mounted elsewhere") as store:
        assert store.image_path(image).is_file()
    (tmp_path / "mounted elsewhere").rename(tmp_path / "here")
    with Store.open(url, create=False) as store:  # the first machine goes on as before
        assert store.images.root == tmp_path / "here"


def test_a_user_who_may_only_read_reads_and_is_told(url: str, tmp_path: Path):
    with Store.open(url, images=tmp_path / "images") as store:
        store.add_annotator("ann")
        reader = f"reader_{uuid.uuid4().hex}"
        with store.database.write() as connection:
            connection.execute(text(f"CREATE ROLE {reader} LOGIN"))
            connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}"))
        asked = make_url(url).set(username=reader).render_as_string(hide_password=False)
        with Store.open(asked, create=False) as reading:
            assert [annotator.name for annotator in reading.annotators()] == ["ann"]
            with pytest.raises(StoreError, match=r"permission denied.*; use another user"):
                reading.add_annotator("bob")
        with store.database.write() as connection:
            connection.execute(text(f"DROP OWNED BY {reader}"))
            connection.execute(text(f"DROP ROLE {reader}"))
