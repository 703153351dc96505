"""Tokenize prompts with tokenizer.json alone, without custom code of a downloaded tokenizer.

transformers would import code that a tokenizer's configuration names. A CLIP needs tokenizer.json
and three settings, and nothing else is read. Left out: the tokenizer that open_clip ships.

Shapes: b = prompts.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from open_clip.tokenizer import HFTokenizer, get_clean_fn
from tokenizers import Tokenizer
from torch import Tensor

from imgalign.errors import CheckpointError, InputError
from imgalign.images import read_plain_file
from reward_models.architecture import Facts, TokenizerOptions, read_settings, validated
from reward_models.contract import TOKENIZER_FILE, TOKENIZER_SETTINGS

LARGEST_TOKENIZER = 2**27
"""Bytes; that of a quarter of a million tokens takes 35 million."""


class Padding(Facts):
    """The settings that are read from tokenizer_config.json."""

    pad_token: str
    """Pads prompts to the context length."""
    sep_token: str | None = None
    """Separates texts."""
    padding_side: Literal["left", "right"] = "right"
    """The side of the padding."""


class FolderTokenizer:
    """Prompts to token ids of one length, truncated and padded as `transformers` does."""

    def __init__(
        self,
        backend: Tokenizer,
        padding: Padding,
        *,
        context_length: int,
        options: TokenizerOptions,
    ) -> None:
        self.backend = backend
        self.padding = padding
        self.context_length = context_length
        self.options = options
        self.clean_fn: Callable[[str], str] = get_clean_fn(options.clean or "whitespace")

    def __call__(self, prompts: Sequence[str], context_length: int) -> Int[Tensor, "b length"]:
        """Token ids, truncated and padded to `context_length`, with begin and end token."""
        pad = self.backend.token_to_id(self.padding.pad_token)
        self.backend.enable_truncation(context_length)
        self.backend.enable_padding(
            direction=self.padding.padding_side,
            pad_id=pad,
            pad_token=self.padding.pad_token,
            length=context_length,
        )
        encoded = self.backend.encode_batch([self.clean_fn(prompt) for prompt in prompts])
        tokens = torch.tensor([each.ids for each in encoded], dtype=torch.long)
        separator = self.backend.token_to_id(self.padding.sep_token or "")
        if self.options.strip_sep_token and separator is not None:
            tokens = tokens.masked_fill(tokens.eq(separator), 0)
        return tokens

    def beyond(self, prompt: str, *, kept: int) -> str:
        """The text of a prompt after its first `kept` tokens."""
        self._plain()
        text = self.clean_fn(prompt)
        places = self.backend.encode(text, add_special_tokens=False).offsets
        return text[places[kept][0] :].strip() if len(places) > kept else ""

    def save(self, folder: Path) -> None:
        """Write the files that `read_tokenizer` reads."""
        self._plain()
        folder.mkdir()
        text = self.backend.to_str(pretty=True)
        (folder / TOKENIZER_FILE).write_text(text, encoding="utf-8")
        settings = json.dumps(self.padding.model_dump(exclude_none=True), indent=2)
        (folder / TOKENIZER_SETTINGS).write_text(f"{settings}\n", encoding="utf-8")

    def _plain(self) -> None:
        # Set by calls; they are no part of the tokenizer.
        self.backend.no_truncation()
        self.backend.no_padding()


def read_tokenizer(
    folder: Path, *, context_length: int, options: TokenizerOptions | None
) -> FolderTokenizer:
    """Load the tokenizer in a folder; CheckpointError where a file is missing or invalid."""
    path = folder / TOKENIZER_FILE
    settings = read_settings(folder / TOKENIZER_SETTINGS)
    if not isinstance(settings, dict):
        raise CheckpointError(f"{folder / TOKENIZER_SETTINGS}: expected an object of settings")
    if "auto_map" in settings:
        raise CheckpointError(
            f"{folder / TOKENIZER_SETTINGS}: auto_map names custom code, which is never run; "
            "save the tokenizer with a class of transformers"
        )
    known = {name: _token(settings[name]) for name in Padding.model_fields if name in settings}
    padding = validated(Padding, known, str(folder / TOKENIZER_SETTINGS))
    try:
        text = read_plain_file(path, limit=LARGEST_TOKENIZER).decode("utf-8")
        backend = Tokenizer.from_str(text)
    except InputError as error:
        raise CheckpointError(
            f"{path}: {error}; only this file of a tokenizer is read, save_pretrained of "
            "transformers writes it"
        ) from None
    except Exception as error:  # tokenizers raises no class of its own
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: tokenizer cannot be read ({reason})") from None
    if backend.token_to_id(padding.pad_token) is None:
        raise CheckpointError(f"{path}: has no token {padding.pad_token[:40]!r}, the padding")
    return FolderTokenizer(
        backend, padding, context_length=context_length, options=options or TokenizerOptions()
    )


def from_open_clip(tokenizer: HFTokenizer, options: TokenizerOptions | None) -> FolderTokenizer:
    """Convert a tokenizer that open_clip downloaded; InputError for a slow one."""
    inner: Any = tokenizer.tokenizer
    backend = getattr(inner, "backend_tokenizer", None)
    if backend is None or inner.pad_token is None:
        raise InputError(f"reward model: tokenizer {type(inner).__name__} cannot be saved")
    return FolderTokenizer(
        backend,
        Padding(
            pad_token=inner.pad_token, sep_token=inner.sep_token, padding_side=inner.padding_side
        ),
        context_length=tokenizer.context_length,
        options=options or TokenizerOptions(),
    )


def _token(value: object) -> object:
    """A token as text; transformers also writes {"content": "<pad>", ...}."""
    return value.get("content") if isinstance(value, dict) else value
