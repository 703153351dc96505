"""The losses of TRL, by TRL's own code: an oracle for ours, where `trl` is installed.

TRL computes its losses inside its trainers. So a trainer is made here without its constructor, with
the attributes that its `_compute_loss` reads, and with a language model whose completions repeat
one token: sample number n is token n, as often as the sample is long. That method is private, hence
the extra `oracle` with one minor version of TRL.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor


def trainer(name: str) -> Any:
    """A trainer of TRL by its name; skips the test where TRL is not installed."""
    trl = pytest.importorskip("trl", reason="needs TRL: pip install -e '.[oracle]'")
    return getattr(trl, name)


class RepeatingModel(torch.nn.Module):
    """A language model that knows the log-probability of each token, and nothing of prompts."""

    is_gradient_checkpointing = False

    def __init__(self, log_prob: Tensor) -> None:
        super().__init__()
        self.log_prob = log_prob

    def forward(self, input_ids: Tensor, labels: Tensor, **_: object) -> SimpleNamespace:
        log_probs = torch.where(labels != -100, self.log_prob[input_ids], 0.0)[:, 1:]
        nothing = torch.zeros_like(log_probs)
        return SimpleNamespace(
            log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )


def pair_loss(
    log_prob: Tensor,
    reference: Tensor,
    pairs: Sequence[tuple[int, int]],
    weights: Mapping[str, float],
    *,
    beta: float,
    label_smoothing: float = 0.0,
    counts: Tensor | None = None,
) -> Tensor:
    """Mean over pairs, (chosen, rejected), of TRL's losses. Example of `weights`: {"ipo": 1.0}.

    `counts` are the tokens of each sample; without them each has one.
    """
    counts = torch.ones(len(log_prob), dtype=torch.long) if counts is None else counts
    made = _made(
        "DPOTrainer",
        log_prob / counts,
        reference / counts,
        loss_types=list(weights),
        loss_weights=list(weights.values()),
        beta=beta,
        label_smoothing=label_smoothing,
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        use_weighting=False,
    )
    samples = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    return _loss(made, _tokens(samples, counts[samples].tolist()))


def kto_loss(
    log_prob: Tensor,
    reference: Tensor,
    samples: Sequence[int],
    desirable: Sequence[bool],
    *,
    kl_samples: Sequence[int],
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Mean over samples of TRL's KTO; `kl_samples` are those of which it estimates the KL."""
    made = _made(
        "KTOTrainer",
        log_prob,
        reference,
        loss_type="kto",
        calculate_KL=True,
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    inputs = _tokens(samples) | {f"KL_{key}": each for key, each in _tokens(kl_samples).items()}
    inputs["label"] = torch.tensor(desirable)
    return _loss(made, inputs)


def reward_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean over pairs of the loss of TRL's reward models."""
    made = trainer("RewardTrainer")
    made = made.__new__(made)
    vars(made).update(
        model=_Scores(torch.cat([chosen, rejected])),
        accelerator=_ALONE,
        args=SimpleNamespace(center_rewards_coefficient=None),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"attention_mask": torch.ones(2 * len(chosen), 1)}
    found: Tensor = made.compute_loss(made.model, inputs)
    return found


class _Scores(torch.nn.Module):
    """A reward model that has scored already."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(logits=self.scores[:, None])


def _tokens(samples: Sequence[int], lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
    """A prompt of one token, and the sample as often as it is long; padded on the right."""
    lengths = [1] * len(samples) if lengths is None else lengths
    input_ids = torch.zeros(len(samples), 1 + max(lengths), dtype=torch.long)
    completion_mask = torch.zeros_like(input_ids)
    for row, (sample, length) in enumerate(zip(samples, lengths, strict=True)):
        input_ids[row, 1 : 1 + length] = sample
        completion_mask[row, 1 : 1 + length] = 1
    attention_mask = completion_mask.clone()
    attention_mask[:, 0] = 1
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "completion_mask": completion_mask,
    }


def _made(name: str, log_prob: Tensor, reference: Tensor, **settings: object) -> Any:
    kind = trainer(name)
    made = kind.__new__(kind)
    vars(made).update(
        model=RepeatingModel(log_prob),
        ref_model=RepeatingModel(reference.detach()),
        accelerator=_ALONE,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        precompute_ref_logps=False,
        aux_loss_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **settings,
    )
    return made


def _loss(made: Any, inputs: dict[str, Tensor]) -> Tensor:
    found: Tensor = made._compute_loss(made.model, inputs, return_outputs=False)
    return found


def _same(value: Tensor) -> Tensor:
    return value


_ALONE = SimpleNamespace(device=torch.device("cpu"), gather=_same, gather_for_metrics=_same)
"""An accelerator of one process."""
