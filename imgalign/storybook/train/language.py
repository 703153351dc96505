"""Pretrain the storybook's language model on texts of its grammar, from scratch.

A decoder in Llama's layout with a byte-level BPE tokenizer (chat_tokenizer.py). It is a base model
with the average behaviour of its corpus (corpus.py): it answers an idea with a picture prompt, as
flawed as people's unselected answers are. Alignment begins from there. Texts are packed into rows
of the length of the context, each text whole, so attention reaches into other texts of a row.

Shapes: n = rows, l = CONTEXT tokens.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from imgalign.storybook.chat_tokenizer import build_chat_tokenizer
from imgalign.storybook.corpus import pretraining_texts
from imgalign.storybook.train.loop import Indices, Schedule, native_precision, say, train

CONTEXT = 128
"""Tokens; the longest text of the corpus has about 60."""
VOCABULARY = 768
"""Most tokens; the corpus has no more than about 600 pieces to merge."""
TOKENIZER_TEXTS = 20_000
BATCH = 8
"""Rows, of about nine texts each."""
UNREAD = -100
"""Label of padding, which the loss leaves out."""
SEED = 0


def train_language(out: Path, *, num_texts: int, learning_rate: float) -> None:
    """Train for one pass over the texts, resume if `out` has state, write `out/language`.

    That folder is one that `AutoModelForCausalLM` and `AutoTokenizer` load.
    """
    torch.manual_seed(SEED)
    texts = pretraining_texts(num_texts, seed=SEED)
    tokenizer = build_chat_tokenizer(
        texts[:TOKENIZER_TEXTS], out / "language", vocab_size=VOCABULARY, max_length=CONTEXT
    )
    rows = packed(tokenizer, texts)
    model = build_language_model(tokenizer)
    say(f"{out}: {model.num_parameters():,} parameters, {rows.numel():,} tokens")

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        ids = rows[torch.from_numpy(indices)].long()
        labels = ids.masked_fill(ids == tokenizer.pad_token_id, UNREAD)
        with native_precision():
            value: Tensor = model(input_ids=ids, labels=labels, use_cache=False).loss
        return value, {"loss": value.item()}

    def save(step: int) -> None:
        say(f"{out}: writing the model of step {step}")
        model.save_pretrained(out / "language")

    train(
        out,
        model,
        loss,
        num_images=len(rows),
        schedule=Schedule(num_steps=len(rows) // BATCH, learning_rate=learning_rate),
        batch=BATCH,
        decay=0.998,
        betas=(0.9, 0.98),
        on_save=save,
    )


def build_language_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A decoder of 1.4 M parameters with random weights; input and output embeddings are tied."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=160,
            intermediate_size=448,
            num_hidden_layers=4,
            num_attention_heads=5,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            **special,
        )
    )
    model.generation_config = GenerationConfig(**special)  # type: ignore[no-untyped-call]
    return model


def packed(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Int[Tensor, "n l"]:
    """Token ids of the texts, each between the begin and the end token, in padded rows.

    A text that does not fit into what is left of a row begins the next one.
    """
    rows: list[list[int]] = [[]]
    for ids in tokenizer(list(texts), return_attention_mask=False).input_ids:
        ids.append(tokenizer.eos_token_id)
        if len(rows[-1]) + len(ids) > CONTEXT:
            rows.append([])
        rows[-1] += ids
    padding = tokenizer.pad_token_id
    return torch.tensor([row + [padding] * (CONTEXT - len(row)) for row in rows], dtype=torch.int16)
