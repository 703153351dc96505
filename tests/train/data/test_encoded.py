"""Claims: what was encoded once is not encoded again, by any run; disk and memory stay bounded."""

import pytest
import torch
from torch import Tensor

from imgalign.train.data import encoded
from imgalign.train.data.encoded import EncodedSamples, cache_folder


def content(value: float) -> dict[str, Tensor]:
    return {"latents": torch.full((1, 2, 2), value), "size": torch.tensor([value])}


def test_another_run_finds_what_was_encoded(tmp_path):
    one = EncodedSamples(tmp_path / "vae")
    one.add("aa", content(1.0))
    assert "aa" not in EncodedSamples(tmp_path / "vae")  # not on disk before it is flushed
    one.flush()
    for samples in (one, EncodedSamples(tmp_path / "vae")):
        assert "aa" in samples
        assert "bb" not in samples
        found = samples["aa"]
        assert found.keys() == {"latents", "size"}
        assert torch.equal(found["latents"], torch.full((1, 2, 2), 1.0))
    with pytest.raises(KeyError):
        one["bb"]


def test_a_full_shard_is_written_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(encoded, "SHARD", 2)
    samples = EncodedSamples(tmp_path)
    for key in ("aa", "bb", "cc"):
        samples.add(key, content(1.0))
    assert len(list(tmp_path.iterdir())) == 1
    assert "cc" in samples
    assert "cc" not in EncodedSamples(tmp_path)


def test_two_runs_share_a_folder(tmp_path):
    one, other = EncodedSamples(tmp_path), EncodedSamples(tmp_path)
    one.add("aa", content(1.0))
    other.add("bb", content(2.0))
    one.flush()
    other.flush()
    both = EncodedSamples(tmp_path)
    assert "aa" in both
    assert both["bb"]["size"].item() == 2.0


def test_the_oldest_shards_go_when_the_folder_is_full_and_open_ones_are_still_read(tmp_path):
    first = EncodedSamples(tmp_path, limit=1)
    first.add("aa", content(1.0))
    first.flush()
    other = EncodedSamples(tmp_path, limit=1)
    other.add("bb", content(2.0))
    other.flush()
    assert len(list(tmp_path.iterdir())) == 1
    assert first["aa"]["size"].item() == 1.0
    assert "aa" not in EncodedSamples(tmp_path)
    assert "bb" in EncodedSamples(tmp_path)


def test_a_damaged_shard_is_named_and_its_images_are_encoded_again(tmp_path, caplog):
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 30)
    samples = EncodedSamples(tmp_path)
    assert "damaged" in caplog.text
    samples.add("aa", content(1.0))
    samples.flush()
    assert "aa" in EncodedSamples(tmp_path)


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    samples = EncodedSamples(tmp_path / "file" / "vae")
    samples.add("aa", content(1.0))
    samples.flush()
    assert "cannot be kept there" in caplog.text
    assert samples["aa"]["size"].item() == 1.0


def test_nothing_is_written_without_a_folder():
    samples = EncodedSamples(None)
    samples.add("aa", content(1.0))
    samples.flush()
    assert samples["aa"]["size"].item() == 1.0


def test_the_folder_is_the_users_cache_or_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("IMGALIGN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "imgalign"
    monkeypatch.setenv("IMGALIGN_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
