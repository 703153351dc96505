"""A CLIP tokenizer in which every word of a small closed vocabulary is one token.

It is an ordinary byte-level BPE tokenizer in the Hugging Face format, so StableDiffusionPipeline
loads it like any other. Its merges are learned on the vocabulary until no pair is left to merge:
encoding replays the merges in the order in which they were learned, hence gives back each word
whole (arXiv:1508.07909). A word that is not in the vocabulary is split into smaller pieces and
never becomes an unknown token.
"""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from imgalign.diffusion.tokenizer_files import write_separate_files
from imgalign.errors import InputError

BEGIN, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


def build_tokenizer(words: Iterable[str], folder: Path, *, max_length: int) -> CLIPTokenizer:
    """Write a tokenizer to `folder` and return it as loaded back from there.

    Prompts are lower-cased and truncated or padded to `max_length` tokens, both ends included.
    Padding is the end token, as in Stable Diffusion. Ids are a function of the set of words alone:
    bytes, then merged pieces, then begin and end, so that the end token has the highest id, which
    is how CLIP finds it. InputError for words that CLIP's own rules would split, such as
    "half-moon".
    """
    vocabulary = sorted(set(words))
    for word in vocabulary:
        if not re.fullmatch("[a-z]+", word):
            raise InputError(f"tokenizer: expected words of the letters a to z, got {word!r}")
    merges = _learn_merges(vocabulary)
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(a + WORD_END for a in alphabet), *(a + b for a, b in merges), BEGIN, END]
    new = CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(dict.fromkeys(pieces))},
        merges=merges,  # type: ignore[arg-type]  # annotated as text, but only pairs work
        model_max_length=max_length,
    )
    new.save_pretrained(folder)
    write_separate_files(folder)
    loaded: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return loaded


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    spelled = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges = []
    while pairs := Counter(pair for word in spelled for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merge(word, best) for word in spelled]
    return merges


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
