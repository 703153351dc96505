"""A real policy whose every number is known in closed form: a Gaussian random walk of t steps.

Step k moves a latent of D = 3 * size * size elements from x to x + base[k] + shift[k] + noise of
deviation sigma[k]. `shift` is the trainable part and starts at zero, like LoRA. So
KL(policy || pretrained) of step k is |shift[k]|^2 / (2 sigma[k]^2) whatever the state. Where the
walk ends is a Gaussian too, so it also knows the exact density of samples that it is given.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from image_folders import put
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn import Parameter

from imgalign.errors import CheckpointError
from imgalign.policy import (
    Check,
    Data,
    Draws,
    LogProb,
    Steps,
    Trajectory,
    Weights,
    draws_of,
)
from imgalign.prompts import normal_noise, seed_generators
from imgalign.runs.passes import Passes
from imgalign.runs.trained import ADAPTER
from imgalign.train.config import TrainConfig
from imgalign.train.schedule import RunConfig
from imgalign.unions import with_tags


class RandomWalk:
    """The last step adds no noise when it is `last_step_deterministic`, as with DDIM at eta 1."""

    default_clip_nats = 1.6
    averages_log_ratios = False
    encoding = "walk"

    def __init__(
        self,
        *,
        num_steps: int = 4,
        size: int = 2,
        last_step_deterministic: bool = False,
        batch_size: int = 4,
        steps_per_pass: int = 1,
    ) -> None:
        self.batch_size = batch_size
        self.steps_per_pass = steps_per_pass
        self.event = (3, size, size)
        self.base = torch.linspace(-0.2, 0.2, num_steps)[:, None, None, None].expand(
            num_steps, *self.event
        )
        self.sigma = torch.linspace(0.5, 0.3, num_steps)
        self.mask = torch.ones(num_steps, dtype=torch.bool)
        if last_step_deterministic:
            self.mask[-1] = False
        self.shift = Parameter(torch.zeros(num_steps, *self.event))
        self.remembered: Sequence[Tensor] = ()
        self.taken_on: Tensor | None = None
        """In the place of `shift`, inside `using`."""
        self.num_forwards = 0
        self.passes = Passes()

    @property
    def moves(self) -> Tensor:
        return self.base + (self.shift if self.taken_on is None else self.taken_on)

    def step_means(self, latents: Tensor, steps: Tensor) -> Tensor:
        return latents + self.moves[steps]

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        prompt_ids: Sequence[str] | None = None,
    ) -> Trajectory:
        generators = seed_generators(seeds)

        def noise() -> Tensor:
            return normal_noise(generators, self.event)

        with torch.no_grad():
            latents, log_probs = [noise()], []
            for step in range(len(self.sigma)):
                index = torch.tensor([step])
                where = self.distributions(latents[-1][:, None], index)
                scale = self.sigma[step] if self.mask[step] else 0.0
                latents.append(where.mean[:, 0] + scale * noise())
                log_prob = where.log_prob(latents[-1][:, None])
                log_probs.append(torch.where(self.mask[index], log_prob, 0.0))
        return Trajectory(
            prompts=list(prompts),
            prompt_ids=list(prompts if prompt_ids is None else prompt_ids),
            seeds=list(seeds),
            log_probs=torch.cat(log_probs, dim=1),
            mask=self.mask.expand(len(prompts), -1).clone(),
            replay={"latents": torch.stack(latents, dim=1)},
        )

    def decode(self, trajectory: Trajectory) -> Tensor:
        return trajectory.replay["latents"][:, -1].sigmoid()

    def preview(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> Tensor:
        return self.decode(self.sample(prompts, seeds=seeds))

    def units(self, trajectory: Trajectory) -> list[Tensor]:
        return list(torch.split(torch.arange(len(self.sigma)), self.steps_per_pass))

    def distributions(self, latents: Tensor, steps: Tensor) -> Distribution:
        self.num_forwards += 1
        self._count(len(latents) * len(steps))
        scale = self.sigma[steps][:, None, None, None].expand_as(latents)
        return Independent(Normal(self.step_means(latents, steps), scale), 3)

    def _count(self, many: int) -> None:
        graph = many if torch.is_grad_enabled() else 0
        self.passes = Passes(self.passes.forward + many, self.passes.backward + graph)

    def indices(self, steps: Steps) -> Tensor:
        return torch.arange(len(self.sigma))[steps]

    def step_distributions(self, trajectory: Trajectory, steps: Steps) -> Distribution:
        index = self.indices(steps)
        return self.distributions(trajectory.replay["latents"][:, index], index)

    def actions(self, trajectory: Trajectory, steps: Steps) -> Tensor:
        return trajectory.replay["latents"][:, self.indices(steps) + 1]

    def features(self, trajectory: Trajectory, steps: Steps) -> Mapping[str, Tensor]:
        rows = [
            torch.randn(8, generator=torch.Generator("cpu").manual_seed(zlib.crc32(each.encode())))
            for each in trajectory.prompts
        ]
        return {"prompt": torch.stack(rows), "timestep": self.indices(steps) / len(self.sigma)}

    def encode(self, prompts: Sequence[str], samples: Tensor) -> Data:
        corner = samples[:, :, : self.event[1], : self.event[2]]
        return Data(
            prompts=list(prompts),
            prompt_ids=list(prompts),
            content={"latents": corner.clamp(1e-4, 1 - 1e-4).logit()},
        )

    def given(self, trajectory: Trajectory) -> Data:
        return Data(
            prompts=trajectory.prompts,
            prompt_ids=trajectory.prompt_ids,
            content={"latents": trajectory.replay["latents"][:, -1]},
        )

    def elements(self, data: Data) -> Tensor:
        latents = data.content["latents"]
        return torch.full((len(latents),), float(latents[0].numel()))

    def starting_noise(self, seeds: Sequence[int]) -> Mapping[str, Tensor]:
        return {"noise": normal_noise(seed_generators(seeds), self.event)}

    def draw(
        self, data: Data, *, seeds: Sequence[int], levels: Sequence[float] | None = None
    ) -> Draws:
        """Its density is exact, so these change nothing."""
        drawn = draws_of(seeds, self.event, levels=levels)
        return replace(drawn, noise=data.content.get("noise", drawn.noise))

    def log_prob(self, data: Data, draws: Draws) -> LogProb:
        scale = (1 + (self.sigma[self.mask] ** 2).sum()).sqrt()
        latents = data.content["latents"]
        self._count(len(latents))
        where: Distribution = Normal(self.moves.sum(dim=0).expand_as(latents), scale)
        densities = where.log_prob(latents)
        return LogProb(
            values=densities.flatten(1).sum(dim=1), kind="exact", num_elements=latents[0].numel()
        )

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        kept = self.remembered if weights == "remembered" else ()
        self.taken_on = kept[0] if kept else torch.zeros_like(self.base)
        try:
            yield
        finally:
            self.taken_on = None

    def remember(self) -> None:
        self.remembered = (self.shift.detach().clone(),)

    def trainable_parameters(self) -> Iterable[Parameter]:
        return [self.shift]

    def checks(self) -> list[Check]:
        return []

    def save(self, folder: Path) -> None:
        kept = dict(zip(["remembered"], self.remembered, strict=False))
        save_file({"shift": self.shift.detach(), **kept}, folder / ADAPTER)

    def load(self, folder: Path) -> None:
        path = folder / ADAPTER
        if not path.is_file():
            raise CheckpointError(f"{path}: missing")
        found = load_file(path)
        with torch.no_grad():
            self.shift.copy_(found["shift"])
        self.remembered = (found["remembered"],) if "remembered" in found else ()


class Brightness:
    """Reward: the mean of an image, between 0 and 1."""

    def score(self, *, prompts: Sequence[str], samples: Tensor) -> Tensor:
        return samples.mean(dim=(1, 2, 3))


def walk_settings(**changes: object) -> TrainConfig:
    """A run of a few small iterations that uses everything: KL control, held-out prompts, saves.

    Settings of `run` may be given by their name alone, other sections whole.
    """
    sections: dict[str, object] = {
        "policy": {"batch_size": 4},
        "algorithm": {
            "name": "ppo",
            "baseline": {"kind": "value"},
            "inner_epochs": 2,
            "minibatches": 2,
            "kl": {"kind": "adaptive", "coefficient": 0.01, "target_nats": 0.5},
        },
        "optimizer": {"learning_rate": 0.02, "warmup_iterations": 2},
        "data": walk_data(),
    }
    run: dict[str, object] = {
        "measure_every": 2,
        "patience": None,
        "samples": {"every": 3, "num_prompts": 2, "images_per_prompt": 2},
        "checkpoint_every": 2,
        "iterations": 6,
    }
    run |= {name: value for name, value in changes.items() if name in RunConfig.model_fields}
    sections |= {name: value for name, value in changes.items() if name not in run}
    return TrainConfig.model_validate(with_tags(TrainConfig, sections | {"run": run}))


def walk_data_for(algorithm: Mapping[str, object], folder: Path) -> dict[str, object]:
    """`walk_data`, with four examples in a folder for algorithms that keep their likelihood."""
    if "ptx" not in algorithm:
        return walk_data()
    for number in range(4):
        put(folder / f"{number}.png", 40 * number, caption="a red house")
    return walk_data(examples=str(folder))


def walk_data(*, held_out: int = 2, **changes: object) -> dict[str, object]:
    """Five storybook prompts, and so many held out."""
    data: dict[str, object] = {
        "from": "rollouts",
        "prompts": {"num_storybook": 5},
        "held_out": {"num_prompts": held_out},
        "prompts_per_iteration": 2,
        "group_size": 4,
    }
    return data | changes
