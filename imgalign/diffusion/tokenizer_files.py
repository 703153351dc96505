"""The forms of a tokenizer's folder that different versions of transformers read."""

from pathlib import Path

from tokenizers import Tokenizer


def write_separate_files(folder: Path) -> None:
    """Write vocab.json and merges.txt beside tokenizer.json, which transformers 4 does not read."""
    Tokenizer.from_file(str(folder / "tokenizer.json")).model.save(str(folder))
