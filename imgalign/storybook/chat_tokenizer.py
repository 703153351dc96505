"""Byte-level BPE tokenizer of a small language model, with a chat template.

An ordinary tokenizer in the Hugging Face format, which `AutoTokenizer` loads. Every text can be
encoded and is decoded to itself, because all 256 bytes are tokens; text that spells a special token
becomes that token. A text is encoded with BEGIN before it; END is up to the caller, as it is the
model's to say. Left out: the CLIP tokenizer of the image models (tokenizer.py).
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from imgalign.errors import InputError
from imgalign.storybook.corpus import ASSISTANT, BEGIN, END, PAD, USER

SPECIAL = (PAD, BEGIN, END, USER, ASSISTANT)
"""Their ids are 0 to 4."""

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '<|user|>' + message.content }}"
    "{% elif message.role == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{% else %}"
    "{{ raise_exception('expected messages of user and assistant, got ' + message.role) }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Renders `corpus.conversation` between BEGIN and END; answers are marked for the loss."""


def build_chat_tokenizer(
    texts: Iterable[str], folder: Path, *, vocab_size: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Learn merges on `texts`, write the tokenizer to `folder`, and return it as loaded from there.

    A function of the texts. InputError for a vocabulary that has no room for the bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + len(SPECIAL):
        raise InputError(
            f"vocab_size: expected at least {len(alphabet) + len(SPECIAL)}, the bytes and the"
            f" special tokens, got {vocab_size}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    # Special tokens are never split, so no merges are learned inside them.
    special = re.compile("|".join(map(re.escape, SPECIAL)))
    tokenizer.train_from_iterator((special.split(text) for text in texts), trainer)
    begin = (BEGIN, SPECIAL.index(BEGIN))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[begin]
    )
    kind: Any = PreTrainedTokenizerFast  # the library gives its constructor no types
    new = kind(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[USER, ASSISTANT],
        model_max_length=max_length,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    new.save_pretrained(folder)
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return loaded
