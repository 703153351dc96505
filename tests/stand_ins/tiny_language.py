"""Causal language models with random weights and a tokenizer of bytes, as folders."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

Kind = Literal["llama", "qwen2", "qwen3", "gpt2"]
KINDS: tuple[Kind, ...] = get_args(Kind)

BEGIN, END, PAD = "<begin>", "<|endoftext|>", "<pad>"
USER, ANSWER = "<user>", "<answer>"
TEMPLATE = (
    "{% for message in messages %}<user>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)
CONTEXT = 64
LETTERS = "abdeghlnorstuw "
"""Enough for the contract suite's prompts; with few of them, texts of a random model often end."""


def build_tokenizer(
    *,
    begin: bool = False,
    end: bool = True,
    pad: Literal["own", "end"] | None = None,
    template: str | None = None,
    context_length: int | None = None,
    letters: str | None = None,
) -> PreTrainedTokenizerFast:
    """A tokenizer in which every byte is a token, or of each of some `letters`.

    The control tokens are always in it. The end token is called as that of Qwen2 and GPT-2, whose
    classes in transformers add theirs.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if letters is not None:
        alphabet = list(letters.replace(" ", "Ġ"))
    vocab = {byte: number for number, byte in enumerate(sorted(alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([BEGIN, END, PAD, USER, ANSWER])
    if begin:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, backend.token_to_id(BEGIN))]
        )
    kind: Any = PreTrainedTokenizerFast  # the library gives its constructor no types
    tokenizer: PreTrainedTokenizerFast = kind(
        tokenizer_object=backend,
        bos_token=BEGIN if begin else None,
        eos_token=END if end else None,
        pad_token={"own": PAD, "end": END, None: None}[pad],
        additional_special_tokens=[USER, ANSWER],
        model_max_length=context_length,
    )
    tokenizer.chat_template = template
    return tokenizer


def config_of(
    kind: Kind,
    *,
    vocab_size: int,
    tied: bool = False,
    spread: float = 0.02,
    context_length: int = CONTEXT,
) -> PreTrainedConfig:
    """Settings of a model of two layers, 32 channels wide, with weights of a deviation `spread`."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": context_length,
        "initializer_range": spread,
    }
    if kind == "gpt2":
        sizes |= {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3}
    else:
        sizes |= {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
    config = AutoConfig.for_model(
        kind,
        **sizes,
        vocab_size=vocab_size,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    assert isinstance(config, PreTrainedConfig)
    return config


def write_language_model(
    folder: Path,
    kind: Kind = "llama",
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    tied: bool = False,
    spread: float = 0.02,
    context_length: int = CONTEXT,
) -> Path:
    """Write a model and its tokenizer as transformers saves them.

    At the usual `spread` of random weights all tokens are about equally likely whatever comes
    before them; at ten times that, what comes before matters.
    """
    tokenizer = tokenizer or build_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = config_of(
            kind,
            vocab_size=len(tokenizer),
            tied=tied,
            spread=spread,
            context_length=context_length,
        )
        auto: Any = AutoModelForCausalLM  # nor this
        model = auto.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
