"""What algorithms know about a policy: what it did or was given, and how to score that.

An algorithm sees steps, log-probabilities and masks; whether a step is a denoising step or a token
stays inside the policy and its private `replay` and `content`. Small capability protocols say what
a policy can do beyond sampling. Left out: every implementation.

Shapes: b = samples, t = denoising steps or tokens, s = chosen steps, d = features.
Log-probabilities are in nats, summed over the elements of a latent. A sample is an image in [0, 1]
or a text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import Parameter
from typing_extensions import TypeVar

from imgalign.prompts import normal_noise, seed_generators

Steps: TypeAlias = slice | Int[Tensor, " s"]
"""Which steps of a trajectory: `slice(None)` for all, or indices into its t."""

Images: TypeAlias = Float[Tensor, "b 3 h w"]
"""Finished images in [0, 1]."""

Texts: TypeAlias = Sequence[str]
"""Finished texts, without what marks their end."""

S = TypeVar("S", default=Any)
"""Finished samples: `Images` or `Texts`. Who does not look at them names the protocol alone."""
S_co = TypeVar("S_co", covariant=True, default=Any)
S_contra = TypeVar("S_contra", contravariant=True, default=Any)

Weights: TypeAlias = Literal["reference", "remembered"]
"""Which weights a policy can take on for a while, besides those that are trained."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """What a policy did for b prompts, with all that is needed to score it again."""

    prompts: list[str]
    prompt_ids: list[str]
    """Names what each sample answers. Never decoded text: two prompts that a tokenizer cuts to the
    same tokens stay two prompts."""
    seeds: list[int]
    """One per sample; the same seed gives the same sample whatever the batch."""
    log_probs: Float[Tensor, "b t"]
    """Of each step, under the weights that took it; float32."""
    mask: Bool[Tensor, "b t"]
    """False where a step has no density (it adds no noise) or is padding."""
    replay: Mapping[str, Tensor]
    """Private to the policy that made it; the first dimension of every tensor is b."""

    def __post_init__(self) -> None:
        """Refuse fields that disagree about the number of images."""
        tensors = {"log_probs": self.log_probs, "mask": self.mask}
        tensors |= {f"replay[{name!r}]": tensor for name, tensor in self.replay.items()}
        lengths = {
            "prompts": len(self.prompts),
            "prompt_ids": len(self.prompt_ids),
            "seeds": len(self.seeds),
            **{name: tensor.shape[0] for name, tensor in tensors.items()},
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(f"trajectory: expected as many of each field as images, got {lengths}")

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, indices: Sequence[int] | Int[Tensor, " n"]) -> "Trajectory":
        """The images at these positions, in this order; a position may repeat."""
        index = torch.as_tensor(indices)
        if index.dtype == torch.bool:
            raise ValueError("trajectory: expected positions to select, got a mask")
        index = index.long()
        chosen = index.tolist()
        return Trajectory(
            prompts=[self.prompts[i] for i in chosen],
            prompt_ids=[self.prompt_ids[i] for i in chosen],
            seeds=[self.seeds[i] for i in chosen],
            log_probs=_take(self.log_probs, index),
            mask=_take(self.mask, index),
            replay={name: _take(tensor, index) for name, tensor in self.replay.items()},
        )


def _take(tensor: Tensor, index: Int[Tensor, " n"]) -> Tensor:
    return tensor.index_select(0, index.to(tensor.device))


def concatenate(trajectories: Sequence[Trajectory]) -> Trajectory:
    """The images of several trajectories of one policy, one after the other.

    All must have the same number of steps and the same replay fields.
    """
    first = trajectories[0]
    for other in trajectories:
        if other.replay.keys() != first.replay.keys():
            raise ValueError(
                f"trajectory: expected replay fields {sorted(first.replay)},"
                f" got {sorted(other.replay)}; concatenate trajectories of one policy only"
            )
    return Trajectory(
        prompts=[prompt for each in trajectories for prompt in each.prompts],
        prompt_ids=[prompt_id for each in trajectories for prompt_id in each.prompt_ids],
        seeds=[seed for each in trajectories for seed in each.seeds],
        log_probs=torch.cat([each.log_probs for each in trajectories]),
        mask=torch.cat([each.mask for each in trajectories]),
        replay={
            name: torch.cat([each.replay[name] for each in trajectories]) for name in first.replay
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Samples that were given and not sampled here, in the form that a policy scores them."""

    prompts: list[str]
    prompt_ids: list[str]
    """Names what each sample answers, as in a `Trajectory`."""
    content: Mapping[str, Tensor]
    """Private to the policy that encoded them; the first dimension of every tensor is b."""

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, indices: Sequence[int]) -> "Data":
        """The samples at these positions, in this order."""
        index = torch.tensor(indices, dtype=torch.long)
        return Data(
            prompts=[self.prompts[i] for i in indices],
            prompt_ids=[self.prompt_ids[i] for i in indices],
            content={name: _take(tensor, index) for name, tensor in self.content.items()},
        )


def join_data(parts: Sequence[Data]) -> Data:
    """The samples of several parts of one policy, one after the other."""
    return Data(
        prompts=[prompt for part in parts for prompt in part.prompts],
        prompt_ids=[prompt_id for part in parts for prompt_id in part.prompt_ids],
        content={
            name: torch.cat([part.content[name] for part in parts]) for name in parts[0].content
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """The randomness of scoring given samples, made once and handed to every side of a comparison.

    Both are drawn on the CPU, so that a seed means the same on every device.
    """

    levels: Float[Tensor, " b"]
    """How much noise each sample gets: 0 none, towards 1 nothing but noise."""
    noise: Float[Tensor, " b *event"]


def draws_of(
    seeds: Sequence[int], shape: Sequence[int], *, levels: Sequence[float] | None = None
) -> Draws:
    """The draws of samples of a shape, each from its own seed; levels only if none are given.

    Neither order nor number of the samples changes what one of them gets, and equal seeds give
    equal draws: that is how all candidates of a ranking share them.
    """
    generators = seed_generators(seeds)
    drawn = torch.stack([torch.rand((), generator=each) for each in generators])
    return Draws(
        levels=drawn if levels is None else torch.tensor(levels),
        noise=normal_noise(generators, shape),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogProb:
    """Log-probability of given samples, in nats, and what kind of number that is."""

    values: Float[Tensor, " b"]
    kind: Literal["exact", "elbo"]
    """elbo: a surrogate at one noise level, whose differences stand for those of the bound."""
    num_elements: int
    """Elements of one sample, over which it is summed. The same for all samples of a policy, since
    losses are divided by it: where lengths differ, those of the longest one that there can be."""
    counts: Float[Tensor, " b"] | None = None
    """Elements of each sample, such as tokens, where they differ. None: `num_elements`."""
    slopes: Float[Tensor, " b *event"] | None = None
    """Gradient of each value with respect to what the network said, without a graph; None for a
    policy that has no such thing of one size."""


@runtime_checkable
class Policy(Protocol[S_co]):
    """Makes samples, and is trained."""

    remembered: Sequence[Tensor]
    """What `remember` kept, in the order of `trainable_parameters`; empty without any. The tensors
    never change, so that whoever keeps them can put them back later."""

    @property
    def batch_size(self) -> int:
        """Samples in one forward pass of the network."""
        ...

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        prompt_ids: Sequence[str] | None = None,
    ) -> Trajectory:
        """Make one sample per prompt and seed; without ids the prompts are their own ids."""
        ...

    def decode(self, trajectory: Trajectory) -> S_co:
        """The finished samples of a trajectory."""
        ...

    def preview(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> S_co:
        """One sample per prompt and seed as users would make them, without exploration noise."""
        ...

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        """Inside, the policy has other weights.

        "reference" is what it started from; "remembered" is what `remember` kept last, and before
        that the reference. Not between a forward pass and its backward pass.
        """
        ...

    def remember(self) -> None:
        """Keep a copy of the present weights, in place of the last one; `save` saves it too."""
        ...

    def trainable_parameters(self) -> Iterable[Parameter]:
        """In an order that stays the same from run to run."""
        ...

    def checks(self) -> list["Check"]:
        """Rules that only this kind of policy can be asked about, measured."""
        ...

    def save(self, folder: Path) -> None:
        """Write what was trained into an existing folder, in the format of the model's library."""
        ...

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; CheckpointError where it is missing or does not fit."""
        ...


@runtime_checkable
class PromptReader(Protocol):
    """A policy, or the plan of one before it is loaded, that reads prompts of limited length."""

    def refuse_prompts(self, prompts: Sequence[str]) -> None:
        """InputError for prompts whose end it would not see."""
        ...


@runtime_checkable
class StepPolicy(Policy[S_co], Protocol[S_co]):
    """A policy whose samples are made of steps, each with a density that can be computed again.

    Scoring a trajectory with the weights that made it gives its `log_probs` back exactly:
    guidance, dropout and number types are the same on both sides.
    """

    @property
    def default_clip_nats(self) -> float:
        """The usual limit of the log-ratio of a step of this kind, for clipped policy gradients."""
        ...

    def units(self, trajectory: Trajectory) -> list[Int[Tensor, " s"]]:
        """The steps, cut into those that are scored in one forward pass, as they were sampled."""
        ...

    def step_distributions(self, trajectory: Trajectory, steps: Steps) -> Distribution:
        """What each step could have become: batch shape [b s], event shape of one latent.

        Differentiable in the trainable parameters; `kl_divergence` and `entropy` are in nats.
        """
        ...

    def actions(self, trajectory: Trajectory, steps: Steps) -> Shaped[Tensor, "b s *event"]:
        """What it became at these steps: a value of `step_distributions`, as stored.

        With it one forward pass serves the log-probability, the KL and the entropy.
        """
        ...

    def features(self, trajectory: Trajectory, steps: Steps) -> Mapping[str, Tensor]:
        """What a value estimator may see: `prompt` [b d] and `timestep` [s], without gradients.

        What a critic reads may stand beside them. Tensors of several axes have a row per sample.
        """
        ...


@runtime_checkable
class LikelihoodPolicy(Policy[S], Protocol[S]):
    """A policy that scores samples that it was given."""

    @property
    def averages_log_ratios(self) -> bool:
        """Whether its samples are usually compared by the mean log-ratio of an element.

        For methods that know both, the mean and the sum. The mean is usual where samples differ in
        their number of elements.
        """
        ...

    @property
    def encoding(self) -> str | None:
        """A short name, fit for a folder, of how samples are encoded.

        Two policies of one name give the same samples the same content. None where encoding is so
        fast that its results are not worth keeping.
        """
        ...

    def encode(self, prompts: Sequence[str], samples: S) -> Data:
        """Samples in the form that is scored, images at any size; without gradients.

        InputError for one that cannot be scored.
        """
        ...

    def given(self, trajectory: Trajectory) -> Data:
        """Its own finished samples as data, without decoding and encoding them."""
        ...

    def elements(self, data: Data) -> Float[Tensor, " b"]:
        """How many elements each sample has, over which its log-probability is summed: numbers of a
        latent, or tokens.
        """
        ...

    def starting_noise(self, seeds: Sequence[int]) -> Mapping[str, Tensor]:
        """Content for `draw`: the noise from which this model generates an image of each seed."""
        ...

    def draw(
        self, data: Data, *, seeds: Sequence[int], levels: Sequence[float] | None = None
    ) -> Draws:
        """Noise level and noise for one score of each sample, from its own seed.

        Equal seeds give equal draws, in any order, batch and process. `levels` in [0, 1), where
        given, are the places of the noise levels in their distribution, and the seeds only decide
        the noise: so levels can be spread evenly over a batch. Content with a `starting_noise` has
        that noise instead.
        """
        ...

    def log_prob(self, data: Data, draws: Draws) -> LogProb:
        """Of each sample given its prompt, under the present weights; differentiable."""
        ...


@runtime_checkable
class RewardModel(Protocol[S_contra]):
    """Says how good a sample is for its prompt; higher is better, the scale is its own."""

    def score(self, *, prompts: Sequence[str], samples: S_contra) -> Float[Tensor, " b"]:
        """One finite score per sample; images in [0, 1] at any size."""
        ...


@runtime_checkable
class ReadsTokens(Protocol):
    """A policy, or what judges its samples, to which samples are tokens."""

    @property
    def reading(self) -> str:
        """Fingerprint of its tokenizer and chat template."""
        ...


@runtime_checkable
class Critic(ReadsTokens, Protocol):
    """Predicts the reward of a sample at each of its steps; a torch module, to be trained."""

    def __call__(self, features: Mapping[str, Tensor], *, steps: int) -> Float[Tensor, "b {steps}"]:
        """The value of the state in which each of the first steps is taken, in the reward's unit.

        `features` are those of a policy for all steps; nothing after these steps is read.
        """
        ...

    def parameters(self) -> Iterator[Parameter]:
        """What is trained, in an order that stays the same from run to run."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Its weights by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take these weights; RuntimeError where they do not fit."""
        ...


@runtime_checkable
class CriticSource(Protocol):
    """A reward model that a value estimator can start from."""

    def critic(self) -> Critic:
        """A critic that knows what the reward knows, with weights of its own."""
        ...


@runtime_checkable
class FeatureModel(Protocol):
    """A reward model that can say what it sees in images; their diversity is measured in that."""

    def features(self, samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """One vector per image, without gradients; images in [0, 1] at any size."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule, measured.

    Example: name "noise floor", measured "0.0002 nats", expected "under 1.6 nats", passed True.
    """

    name: str
    measured: str
    expected: str
    passed: bool
    cure: str
    """What to do where it failed."""
