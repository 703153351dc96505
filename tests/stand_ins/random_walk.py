"""A real policy whose every number is known in closed form: a Gaussian random walk of t steps.

Step k moves a latent of D = 3 * size * size elements from x to x + base[k] + shift[k] + noise of
deviation sigma[k]. `shift` is the trainable part and starts at zero, like LoRA. So
KL(policy || pretrained) of step k is |shift[k]|^2 / (2 sigma[k]^2) whatever the state.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn import Parameter

from imgalign.policy import Steps, Trajectory
from imgalign.runs.checkpoint import ADAPTER
from imgalign.train.config import TrainConfig


class RandomWalk:
    """The last step is noiseless when `last_step_is_sure`, as with DDIM at eta 1."""

    def __init__(
        self, *, num_steps: int = 4, size: int = 2, last_step_is_sure: bool = False
    ) -> None:
        self.event = (3, size, size)
        self.base = torch.linspace(-0.2, 0.2, num_steps)[:, None, None, None].expand(
            num_steps, *self.event
        )
        self.sigma = torch.linspace(0.5, 0.3, num_steps)
        self.mask = torch.ones(num_steps, dtype=torch.bool)
        if last_step_is_sure:
            self.mask[-1] = False
        self.shift = Parameter(torch.zeros(num_steps, *self.event))
        self.adapter_on = True
        self.num_forwards = 0

    def step_means(self, latents: Tensor, steps: Tensor) -> Tensor:
        moved = latents + self.base[steps]
        return moved + self.shift[steps] if self.adapter_on else moved

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        prompt_ids: Sequence[str] | None = None,
    ) -> Trajectory:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

        def noise() -> Tensor:
            return torch.stack([torch.randn(self.event, generator=each) for each in generators])

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
            samples=latents[-1].sigmoid(),
            log_probs=torch.cat(log_probs, dim=1),
            mask=self.mask.expand(len(prompts), -1).clone(),
            replay={"latents": torch.stack(latents, dim=1)},
        )

    def distributions(self, latents: Tensor, steps: Tensor) -> Distribution:
        self.num_forwards += 1
        scale = self.sigma[steps][:, None, None, None].expand_as(latents)
        return Independent(Normal(self.step_means(latents, steps), scale), 3)

    def indices(self, steps: Steps) -> Tensor:
        return torch.arange(len(self.sigma))[steps]

    def step_distributions(self, trajectory: Trajectory, steps: Steps) -> Distribution:
        index = self.indices(steps)
        return self.distributions(trajectory.replay["latents"][:, index], index)

    def actions(self, trajectory: Trajectory, steps: Steps) -> Tensor:
        return trajectory.replay["latents"][:, self.indices(steps) + 1]

    def log_prob(self, trajectory: Trajectory, steps: Steps) -> Tensor:
        where = self.step_distributions(trajectory, steps)
        return where.log_prob(self.actions(trajectory, steps))

    def features(self, trajectory: Trajectory, steps: Steps) -> Mapping[str, Tensor]:
        rows = [
            torch.randn(8, generator=torch.Generator("cpu").manual_seed(zlib.crc32(each.encode())))
            for each in trajectory.prompts
        ]
        return {"prompt": torch.stack(rows), "timestep": self.indices(steps) / len(self.sigma)}

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.adapter_on = False
        try:
            yield
        finally:
            self.adapter_on = True

    def trainable_parameters(self) -> Iterable[Parameter]:
        return [self.shift]

    def train(self) -> None:
        pass

    def eval(self) -> None:
        pass

    def save(self, folder: Path) -> None:
        save_file({"shift": self.shift.detach()}, folder / ADAPTER)

    def load(self, folder: Path) -> None:
        with torch.no_grad():
            self.shift.copy_(load_file(folder / ADAPTER)["shift"])


class Brightness:
    """Reward: the mean of an image, between 0 and 1."""

    def score(self, *, prompts: Sequence[str], samples: Tensor) -> Tensor:
        return samples.mean(dim=(1, 2, 3))


def walk_settings(**changes: object) -> TrainConfig:
    """A run of a few small iterations that uses everything: KL control, held-out prompts, saves."""
    settings: dict[str, object] = {
        "policy": {"batch_size": 4},
        "ppo": {
            "advantages": "value",
            "inner_epochs": 2,
            "minibatches": 2,
            "kl": {"coefficient": 0.01, "target_nats": 0.5},
        },
        "optimizer": {"learning_rate": 0.02, "warmup_iterations": 2},
        "prompts": {"num_storybook": 5, "num_held_out": 2},
        "held_out": {"every": 2, "patience": None},
        "samples": {"every": 3, "num_prompts": 2, "images_per_prompt": 2},
        "prompts_per_iteration": 2,
        "images_per_prompt": 4,
        "checkpoint_every": 2,
        "iterations": 6,
    }
    return TrainConfig.model_validate(settings | changes)
