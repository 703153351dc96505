"""Samples as a policy encoded them, kept on disk and shared between runs.

One folder for each way of encoding (`LikelihoodPolicy.encoding`: the encoder's hash, the size, the
way to it), with shards of safetensors in it. A shard holds a few hundred samples; the name of a
tensor is "SHA-256 of the file/name of the tensor". Shards are written whole or not at all, under a
name that no other process uses, so that runs may share a folder. The oldest are removed when a
folder grows beyond its limit.
"""

import logging
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from imgalign.files import write_atomically

log = logging.getLogger(__name__)

VARIABLE = "IMGALIGN_CACHE"
SHARD = 256
"""Samples in a shard."""
LIMIT = 20 * 2**30
"""Bytes that the shards of one way of encoding may take."""


def cache_folder() -> Path:
    """Where encoded samples lie: IMGALIGN_CACHE, or the user's cache folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "imgalign"


def folder_of(encoding: str | None) -> Path | None:
    """Where samples of an encoding lie; None for one that is not worth keeping."""
    return None if encoding is None else cache_folder() / encoding


class EncodedSamples:
    """A mapping from the hash of a file to what a policy made of it.

    `folder` None keeps them in memory only. Shards stay open, so that one that another process
    removes is still read.
    """

    def __init__(self, folder: Path | None, *, limit: int = LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self._new: dict[str, dict[str, Tensor]] = {}
        self._places: dict[str, tuple[Any, list[str]]] = {}
        """An open shard, and the names of the tensors there."""
        self._shards: set[Path] = set()
        self.look_again()

    def look_again(self) -> None:
        """Open the shards that other processes have written since."""
        if self.folder is not None and self.folder.is_dir():
            for shard in sorted(set(self.folder.glob("*.safetensors")) - self._shards):
                self._open(shard)

    def __contains__(self, key: str) -> bool:
        return key in self._new or key in self._places

    def __getitem__(self, key: str) -> dict[str, Tensor]:
        """Tensors whose first dimension is 1, on the CPU; KeyError where there are none."""
        if key in self._new:
            return self._new[key]
        shard, names = self._places[key]
        return {name.partition("/")[2]: shard.get_tensor(name) for name in names}

    def add(self, key: str, content: Mapping[str, Tensor]) -> None:
        """Keep what was encoded; on disk from the next full shard or `flush` on."""
        self._new[key] = {name: tensor.cpu().contiguous() for name, tensor in content.items()}
        if self.folder is not None and len(self._new) >= SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet. A folder that cannot be written costs only time."""
        if self.folder is None or not self._new:
            return
        tensors = {
            f"{key}/{name}": tensor
            for key, content in self._new.items()
            for name, tensor in content.items()
        }
        shard = self.folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(shard, save(tensors))
            self._shrink()
        except OSError as error:
            log.warning("%s: encoded images cannot be kept there (%s)", self.folder, error)
            self.folder = None
        else:
            self._open(shard)
            self._new = {}

    def _open(self, shard: Path) -> None:
        self._shards.add(shard)
        try:
            file: Any = safe_open(shard, framework="pt")
            for name in file.keys():  # noqa: SIM118  not a mapping
                shard_of, names = self._places.setdefault(name.partition("/")[0], (file, []))
                if shard_of is file:  # another shard may have the same sample
                    names.append(name)
        except (OSError, SafetensorError):
            log.warning("%s: damaged; its images are encoded again", shard)

    def _shrink(self) -> None:
        """Remove the oldest shards beyond the limit, but not the last one."""
        assert self.folder is not None
        sizes = {}
        for shard in self.folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):  # another run removed it
                sizes[shard] = (shard.stat().st_mtime, shard.stat().st_size)
        total = sum(size for _, size in sizes.values())
        for shard in sorted(sizes, key=sizes.__getitem__)[:-1]:
            if total <= self.limit:
                break
            total -= sizes[shard][1]
            shard.unlink(missing_ok=True)
