"""TRL's PPOTrainer on a language model: CPU seconds of each iteration, passes, memory.

    python benchmarks/peers/language_ppo.py MODEL --data pairs.jsonl --out out.json

It runs in an environment of its own: trl 1.12 is the last release with this trainer, as an
experimental one. `compare_peers.py` calls it beside the same work of imgalign: the reward and the
value model are as large as the policy, with heads of their own, and no response ends early, so that
both sides write as many tokens.
"""

import argparse
import importlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from language import Laps
from measuring import Meter, peak_memory_gb, write
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)


def scored(meter: Meter, reward: Any, get_reward: Callable[..., Any]) -> Callable[..., Any]:
    """Measure what is asked of the reward model; the trainer asks the value model by it, too."""
    scoring = meter.watched("scoring", get_reward)

    def measured(model: Any, *arguments: Any, **named: Any) -> Any:
        return (scoring if model is reward else get_reward)(model, *arguments, **named)

    return measured


def prompts_of(given: argparse.Namespace, tokenizer: Any) -> Any:
    """Tokens of each prompt, up to where its response begins."""
    lines = [json.loads(line) for line in given.data.read_text(encoding="utf-8").splitlines()]
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": line["prompt"]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for line in lines[: given.texts * given.epochs]
    ]
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return importlib.import_module("datasets").Dataset.from_list([{"input_ids": r} for r in rows])


def trainer(ppo: Any, given: argparse.Namespace, folder: str, meter: Meter) -> Any:
    """The peer with the settings asked for; what it generates and what it scores is measured."""
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    policy, reference = (AutoModelForCausalLM.from_pretrained(given.model) for _ in range(2))
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=1)
        for _ in range(2)
    )
    for network in (policy, reference, value.base_model, reward.base_model):
        meter.watch(network)
    module = importlib.import_module("trl.experimental.ppo.ppo_trainer")
    module.__dict__["batch_generation"] = meter.watched("sampling", module.batch_generation)
    module.__dict__["get_reward"] = scored(meter, reward, module.get_reward)
    data = prompts_of(given, tokenizer)
    return ppo.PPOTrainer(
        args=ppo.PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=given.texts,
            local_rollout_forward_batch_size=given.texts,
            total_episodes=given.texts * given.epochs,
            num_ppo_epochs=given.inner_epochs,
            response_length=given.tokens,
            temperature=1.0,
            learning_rate=given.rate,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            num_sample_generations=0,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            logging_steps=10**9,
            disable_tqdm=True,
            seed=0,
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=data,
        eval_dataset=data,
        callbacks=[Laps(meter)],
    )


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True, help="Lines with a prompt.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=32, help="Of an iteration.")
    parser.add_argument("--tokens", type=int, default=32, help="Of a response.")
    parser.add_argument("--inner-epochs", type=int, default=4, help="Passes over each batch.")
    parser.add_argument("--epochs", type=int, default=6, help="Iterations; the first warms up.")
    parser.add_argument("--rate", type=float, default=1e-4, help="Learning rate.")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    # By name: it is no dependency of the project.
    ppo = importlib.import_module("trl.experimental.ppo")
    assert ppo.PPOTrainer  # which loads what it needs
    imported, meter = peak_memory_gb(), Meter()
    with tempfile.TemporaryDirectory() as folder:
        trainer(ppo, given, folder, meter).train()
    meter.rest("learning", of="total", without=("sampling", "scoring"))
    write(given.out, rows=[meter.found() | {"imported_gb": imported}])


if __name__ == "__main__":
    main()
