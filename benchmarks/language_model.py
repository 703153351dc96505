"""What the storybook's language model answers before any alignment, beside what is possible.

    python benchmarks/language_model.py --out benchmarks/results

For ideas for training and for held-out ones: the mean oracle utility and the share of answers
without a flaw, of the model sampled at temperature 1, of its most likely answers, of people's
demonstrations, of copies of the idea, and of the best possible texts. Also the loss of held-out
pretraining texts per token, and how many answers end. Writes language_model.json. Intervals are
bootstrap over ideas at 95 %.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from imgalign.evaluate.origin import hardware, library_versions
from imgalign.statistics import clustered_mean
from imgalign.storybook.annotators import GROUPS
from imgalign.storybook.corpus import pretraining_texts
from imgalign.storybook.demonstrations import CASUAL, CLEAN, WILD, FlawRates, demonstrate
from imgalign.storybook.ideas import parse_idea, sample_ideas
from imgalign.storybook.text_oracle import best_text, check_carried_out, text_utility

ASSETS = Path(__file__).parent.parent / "imgalign" / "storybook" / "assets" / "language"
LONGEST = 48
"""Tokens of an answer, after which it is cut."""
BATCH = 100


class Writer:
    """The model and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()

    @torch.inference_mode()
    def answers(self, ideas: Sequence[str], *, sample: bool, seed: int) -> tuple[list[str], float]:
        """An answer to each idea, and the share of the answers that end."""
        torch.manual_seed(seed)
        texts, ended = [], 0
        for start in range(0, len(ideas), BATCH):
            batch = self.tokenizer.apply_chat_template(
                [[{"role": "user", "content": idea}] for idea in ideas[start : start + BATCH]],
                add_generation_prompt=True,
                padding=True,
                return_tensors="pt",
            )
            whole = {"do_sample": True, "top_k": 0} if sample else {"do_sample": False}
            out = self.model.generate(**batch, **whole, max_new_tokens=LONGEST)
            said = out[:, batch.input_ids.shape[1] :]
            ended += int((said == self.tokenizer.eos_token_id).any(1).sum())
            texts += self.tokenizer.batch_decode(said, skip_special_tokens=True)
        return texts, ended / len(ideas)

    @torch.inference_mode()
    def loss(self, texts: Sequence[str]) -> float:
        """Mean loss in nats per token, ends included."""
        total = count = 0.0
        for text in texts:
            ids = [*self.tokenizer(text).input_ids, self.tokenizer.eos_token_id]
            tensor = torch.tensor([ids])
            total += float(self.model(input_ids=tensor, labels=tensor).loss) * (len(ids) - 1)
            count += len(ids) - 1
        return total / count


def demonstrated(ideas: Sequence[str], rates: FlawRates) -> list[str]:
    """What people write for the ideas."""
    rng = np.random.default_rng(51)
    return [demonstrate(parse_idea(idea), rates, rng).completion for idea in ideas]


def measured(writer: Writer, ideas: Sequence[str]) -> dict[str, Any]:
    """Numbers of each kind of answer."""
    sampled, sampled_end = writer.answers(ideas, sample=True, seed=53)
    greedy, greedy_end = writer.answers(ideas, sample=False, seed=53)
    answers = {
        "sampled": sampled,
        "greedy": greedy,
        "copies": list(ideas),
        "wild demonstrations": demonstrated(ideas, WILD),
        "casual demonstrations": demonstrated(ideas, CASUAL),
        "clean demonstrations": demonstrated(ideas, CLEAN),
    }
    rows = {
        name: {
            "flawless": estimate(check_carried_out(prompts=ideas, samples=texts).float(), ideas),
            **{group: estimate(text_utility(ideas, texts, group=group), ideas) for group in GROUPS},
        }
        for name, texts in answers.items()
    }
    best = {
        group: text_utility(ideas, [best_text(idea, group=group) for idea in ideas], group=group)
        for group in GROUPS
    }
    rows["best possible"] = {group: estimate(each, ideas) for group, each in best.items()}
    rows["answers that end"] = {"sampled": sampled_end, "greedy": greedy_end}
    rows["examples"] = dict(zip(ideas[:12], sampled[:12], strict=True))
    return rows


def estimate(values: torch.Tensor, ideas: Sequence[str]) -> dict[str, float]:
    """A mean with its interval."""
    found = clustered_mean(values.double().numpy(), ideas, seed=0)
    low, high = found.low or math.nan, found.high or math.nan
    return {"mean": round(found.value, 3), "low": round(low, 3), "high": round(high, 3)}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--model", type=Path, default=ASSETS)
    parser.add_argument("--ideas", type=int, default=500)
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    writer = Writer(settings.model)
    found = {
        "command": " ".join(["python benchmarks/language_model.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "versions": library_versions(),
        "parameters": writer.model.num_parameters(),
        "held-out loss, nats per token": writer.loss(
            pretraining_texts(300, seed=57, held_out=True)
        ),
        "training ideas": measured(writer, sample_ideas(settings.ideas, seed=55)),
        "held-out ideas": measured(writer, sample_ideas(settings.ideas, seed=55, held_out=True)),
    }
    text = json.dumps(found, indent=2)
    (settings.out / "language_model.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
