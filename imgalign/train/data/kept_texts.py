"""The texts that a run learns from, which it keeps since they are small: texts.json in its folder.

A resumed run needs neither file nor database. Of rankings it has the texts by their SHA-256, of
completions a list of prompt and text.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from imgalign.errors import CheckpointError, InputError
from imgalign.files import read_json, write_atomically
from imgalign.policy import Texts
from imgalign.train.data.judged import Given, SampleLoader

log = logging.getLogger(__name__)

TEXTS = "texts.json"

ALL_END = (
    "each given text is learned with an end token after it; leave out texts that were cut before "
    "their end (rows with finish_reason: length are left out already)"
)


def text_key(text: str) -> str:
    """The name of a text: the SHA-256 of its bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def loader_of(texts: Mapping[str, str]) -> SampleLoader:
    """Gives texts by their names, as batches of one."""

    def load(key: str) -> Texts:
        if key not in texts:
            raise InputError(f"the text {key[:8]} of this run is no longer there")
        return [texts[key]]

    return load


def write_texts(run: Path, given: Given) -> None:
    """Keep the texts of judgements; says how their ends are learned."""
    log.info(ALL_END)
    keys = dict.fromkeys(key for each in given.rankings for key in each.images)
    texts = {key: given.load(key)[0] for key in keys}
    write_atomically(run / TEXTS, json.dumps(texts, ensure_ascii=False) + "\n")


def write_completions(run: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Keep prompts with their texts; says how their ends are learned."""
    log.info(ALL_END)
    write_atomically(run / TEXTS, json.dumps(pairs, ensure_ascii=False) + "\n")


def kept_texts(run: Path) -> dict[str, str]:
    """Of rankings, what `keep` wrote; CheckpointError where it is missing or damaged."""
    try:
        return {str(key): str(text) for key, text in read_json(run / TEXTS).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise lost(run, error) from None


def kept_completions(run: Path) -> list[tuple[str, str]]:
    """Prompts and texts, what `keep` wrote; CheckpointError where it is missing or damaged."""
    try:
        return [(str(pair[0]), str(pair[1])) for pair in read_json(run / TEXTS)]
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise lost(run, error) from None


def lost(run: Path, error: Exception) -> CheckpointError:
    """For a run whose texts cannot be read."""
    return CheckpointError(
        f"{run / TEXTS}: missing or damaged ({error}), so nobody knows which texts this run learns "
        "from; start a new run"
    )
