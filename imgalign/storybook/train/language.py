"""Pretrain the storybook's language model on texts of its grammar, from scratch.

A decoder in Llama's layout with a byte-level BPE tokenizer (chat_tokenizer.py). It is a base model
with the average behaviour of its corpus (corpus.py): it answers an idea with a picture prompt, as
flawed as people's unselected answers are. Alignment begins from there. All texts of a batch have
the same number of tokens, so that none is padded, and none reads another one.

Shapes: n = batches, b = BATCH texts, l = tokens.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from imgalign.errors import InputError
from imgalign.runs.world import Alone, World, in_turn, writes_files
from imgalign.storybook.chat_tokenizer import build_chat_tokenizer
from imgalign.storybook.corpus import pretraining_texts
from imgalign.storybook.train.loop import Indices, Schedule, native_precision, part_of, say, train

CONTEXT = 128
"""Tokens that the model reads; the longest text of the corpus has about 60."""
VOCABULARY = 768
"""Most tokens; the corpus has no more than about 600 pieces to merge."""
TOKENIZER_TEXTS = 20_000
BATCH = 32
"""Texts, all of the same number of tokens."""
SEED = 0


def train_language(
    out: Path, *, num_texts: int, learning_rate: float, world: World | None = None
) -> None:
    """Train for one pass over the texts, resume if `out` has state, write `out/language`.

    That folder is one that `AutoModelForCausalLM` and `AutoTokenizer` load.
    """
    world = world or Alone()
    torch.manual_seed(SEED)
    texts = pretraining_texts(num_texts, seed=SEED)
    tokenizer = in_turn(
        world,
        lambda: build_chat_tokenizer(
            texts[:TOKENIZER_TEXTS], out / "language", vocab_size=VOCABULARY, max_length=CONTEXT
        ),
    )
    batches = batched(tokenizer, texts)
    if not batches:
        raise InputError(
            f"{out}: expected enough texts for a batch of {BATCH} of one length, got {num_texts}"
        )
    model = build_language_model(tokenizer)
    num_tokens = sum(batch.numel() for batch in batches)
    if writes_files(world):
        say(f"{out}: {model.num_parameters():,} parameters, {num_tokens:,} tokens")

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        own, share = part_of(world, BATCH)
        ids = batches[int(indices[0])][own].long()
        with native_precision():
            value: Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
        return share * value, {"loss": share * value.item()}

    def save(step: int) -> None:
        say(f"{out}: writing the model of step {step}")
        model.save_pretrained(out / "language")

    train(
        out,
        model,
        loss,
        num_images=len(batches),
        schedule=Schedule(num_steps=len(batches), learning_rate=learning_rate),
        batch=1,  # of `batches`
        decay=0.998,
        betas=(0.9, 0.98),
        on_save=save,
        world=world,
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
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=6,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            **special,
        )
    )
    kind: Any = GenerationConfig  # the library gives its constructor no types
    model.generation_config = kind(**special)
    return model


def batched(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[Int[Tensor, "b l"]]:
    """Token ids of texts of one length, each text between the begin and the end token.

    Texts that are left over, less than BATCH of each length, are left out.
    """
    batches = []
    waiting: defaultdict[int, list[list[int]]] = defaultdict(list)
    for ids in tokenizer(list(texts), return_attention_mask=False).input_ids:
        alike = waiting[len(ids)]
        alike.append([*ids, tokenizer.eos_token_id])
        if len(alike) == BATCH:
            batches.append(torch.tensor(alike, dtype=torch.int16))
            alike.clear()
    return batches
