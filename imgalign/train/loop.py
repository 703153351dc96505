"""The training loop: sample, score, learn; measure on the side; save; know when to stop.

Iteration k makes step k + 1. Step n is the weights after n iterations; `step-000200` holds them
with everything that is needed to go on exactly. The loop never repairs: what is wrong is an error
of one line, and the newest checkpoint is good.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from imgalign.algorithms.ppo import measure_kl
from imgalign.errors import ConfigError
from imgalign.files import reporting_full_disk
from imgalign.policy import Check, Policy, RewardModel
from imgalign.prompts import EVALUATION_SEEDS, Prompts, iteration_prompts, training_seed
from imgalign.runs.checkpoint import (
    checkpoints,
    how_to_resume,
    mark,
    remove_checkpoints_after,
    save_checkpoint,
    step_folder,
)
from imgalign.runs.folder import METRICS
from imgalign.runs.metrics import MetricsWriter, Value
from imgalign.runs.progress import ProgressLine
from imgalign.runs.state import save_state
from imgalign.runs.status import RunStatus, write_status
from imgalign.train.checks import examine, require
from imgalign.train.config import TrainConfig
from imgalign.train.learner import Learner
from imgalign.train.rollout import Interrupted, collect
from imgalign.train.starting import STATE, load_trainer_state
from imgalign.train.stopping import BestSoFar, RunEnd, StopRequest
from imgalign.train.watch import painter_of, save_grid

OnStep: TypeAlias = Callable[[int, Mapping[str, Value]], None]

HELD_OUT_SEEDS = EVALUATION_SEEDS[10_000:]
"""Apart from the small seeds that people try out, and from every training seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """What a run maximises, and what it trusts when it asks whether that helped."""

    training: RewardModel
    held_out: RewardModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Everything at one step, in memory."""

    weights: list[torch.Tensor]
    state: dict[str, Any]
    budget: float
    """The KL budget, in nats, that it was kept for."""

    def state_dict(self) -> dict[str, Any]:
        """Fit for a checkpoint; its fields by name."""
        return {"weights": self.weights, "state": self.state, "budget": self.budget}


class Session:
    """One process's part of a run, from a start or a checkpoint to an end."""

    def __init__(
        self,
        settings: TrainConfig,
        *,
        policy: Policy,
        rewards: Rewards,
        prompts: Prompts,
        out: Path,
        stop: StopRequest,
        on_step: OnStep | None = None,
    ) -> None:
        self.settings = settings
        self.policy = policy
        self.rewards = rewards
        self.prompts = prompts
        self.out = out
        self.stop = stop
        self.on_step = on_step
        self.batch_size = settings.policy.batch_size
        self.paint = painter_of(policy, batch_size=self.batch_size)
        self.step = 0
        self.best = BestSoFar()
        self.saved_step: int | None = None
        self.learner = self._new_learner()
        self.seconds: list[float] = []
        self.line = ProgressLine(settings.iterations)
        # With a KL budget: the present state, and the last one whose KL is known to be inside.
        self.pending: Snapshot | None = None
        self.inside: Snapshot | None = None

    def _new_learner(self) -> Learner:
        settings = self.settings
        return Learner(
            self.policy, ppo=settings.ppo, optimizer=settings.optimizer, seed=settings.seed
        )

    # --- state

    def whole_state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights: to go on, and to go back inside the budget.

        Whether this step's weights are inside is measured by the next one only, so a resumed run
        has to remember the earlier ones that are.
        """
        inside = None if self.inside is None else self.inside.state_dict()
        return {**self.state_dict(), "inside": inside}

    def state_dict(self) -> dict[str, Any]:
        """One step, but for the weights; prompts and seeds follow from the step alone."""
        return {
            "step": self.step,
            "learner": self.learner.state_dict(),
            "best": self.best.state_dict(),
            "rng": rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.step = state["step"]
        self.learner.load_state_dict(state["learner"])
        self.best = BestSoFar.from_state(state["best"])
        set_rng_state(state["rng"])

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint that verified."""
        state = load_trainer_state(checkpoint)
        self.policy.load(checkpoint)
        # Loading may have put new tensors in place of those that the optimizer knows.
        self.learner = self._new_learner()
        self.load_state_dict(state)
        inside, budget = state.get("inside"), self.settings.kl_budget_nats
        if inside is not None and budget is not None and inside["budget"] <= budget:
            self.inside = Snapshot(**inside)
        self.saved_step = self.step
        remove_checkpoints_after(self.out, self.step)
        self._mark_best()

    def save(self) -> None:
        """Write a checkpoint of this step, unless it is there; step 0 is the pretrained model."""
        if self.step in (0, self.saved_step):
            return
        settings = self.settings

        def write(folder: Path) -> None:
            self.policy.save(folder)
            save_state(folder, STATE, self.whole_state())

        protect = [] if self.best.step is None else [self.best.step]
        save_checkpoint(
            self.out, self.step, write=write, keep=settings.keep_checkpoints, protect=protect
        )
        self.saved_step = self.step
        self._mark_best()

    def _mark_best(self) -> None:
        best = self.best
        if best.step and best.score is not None and step_folder(self.out, best.step).is_dir():
            mark(self.out, "best", best.step, {"held_out_reward": best.score})

    def _snapshot(self) -> Snapshot | None:
        budget = self.settings.kl_budget_nats
        if budget is None:
            return None
        return Snapshot(weights=self.learner.weights(), state=self.state_dict(), budget=budget)

    def _back_inside_budget(self, kl: float) -> None:
        """Return to the last weights whose KL was inside the budget; later checkpoints go.

        ConfigError where a run was resumed with a smaller budget than its weights had spent.
        """
        if self.inside is None:
            raise ConfigError(
                f"kl_budget_nats: expected at least {kl:.4g}, which step {self.step - 1} that the "
                f"run was resumed from has spent, got {self.settings.kl_budget_nats}; resume with "
                "more, or start a new run"
            )
        self.learner.set_weights(self.inside.weights)
        self.load_state_dict(self.inside.state)
        remove_checkpoints_after(self.out, self.step)
        self.saved_step = self.step if step_folder(self.out, self.step).is_dir() else None
        self._mark_best()

    # --- the loop

    def go(self) -> RunEnd:
        """Iterate until there is a reason to stop; everything is saved when it returns."""
        path = self.out / METRICS
        self.line = ProgressLine(self.settings.iterations, done=self.step)
        with (
            reporting_full_disk(self.out, "training", advice=how_to_resume),
            # A run that is begun again measures step 0 again.
            MetricsWriter(path, resume_step=self.step or -1) as metrics,
            self.line,
        ):
            self._report({})
            with rng_apart():
                self._check()
            if self.step == 0:
                self._record(metrics, self._measure())
                self._draw()
            self.pending = self._snapshot()
            if self.step == 0:  # the pretrained model: its KL is 0
                self.inside = self.pending
            end = self._end()
            while end is None:
                try:
                    values = self._iterate()
                except Interrupted:
                    end = "signal"
                    break
                self._record(metrics, values)
                self._report(values)
                end = self._after(values)
            self.save()
            return end

    def _iterate(self) -> dict[str, float]:
        """One step, and what is measured at it."""
        start = time.perf_counter()
        settings, iteration = self.settings, self.step
        prompts = iteration_prompts(
            self.prompts.training,
            iteration,
            count=settings.prompts_per_iteration,
            seed=settings.seed,
        )
        first = iteration * settings.images_per_iteration
        numbers = range(first, first + settings.images_per_iteration)
        before = rng_state()
        try:
            rollout = collect(
                self.policy,
                self.rewards.training,
                [prompt for prompt in prompts for _ in range(settings.images_per_prompt)],
                seeds=[training_seed(settings.seed, number) for number in numbers],
                batch_size=self.batch_size,
                stop_requested=self.stop,
                on_progress=self._showing("sampling", "images"),
            )
        except Interrupted:
            set_rng_state(before)  # the resumed run samples these images again
            raise
        values = rollout.metrics() | self.learner.update(
            rollout, iteration=iteration, on_progress=self._showing("learning", "parts")
        )
        self.step += 1
        values |= {
            "seconds_sampling": rollout.seconds_sampling,
            "seconds_scoring": rollout.seconds_scoring,
        }
        if self._due(settings.held_out.every):
            values |= self._measure()
        seconds = time.perf_counter() - start
        self.seconds.append(seconds)
        return values | {
            "seconds": seconds,
            "images_per_second": rollout.num_images / seconds,
        }

    def _after(self, values: Mapping[str, float]) -> RunEnd | None:
        """Save and draw where it is time to, and say whether this was the end."""
        budget = self.settings.kl_budget_nats
        # The first of these is of the weights before this step, the second of those after it.
        measured = [values["kl"], values.get("held_out_kl", 0.0)]
        if budget is not None and max(measured) > budget:
            if measured[0] <= budget:
                self.inside = self.pending
            self._back_inside_budget(measured[0])
            return "kl budget"
        self.inside, self.pending = self.pending, self._snapshot()
        if self._due(self.settings.samples.every):
            self._draw()
        end = self._end()
        is_best = self.best.step == self.step
        if end is not None or is_best or self.step % self.settings.checkpoint_every == 0:
            self.save()
        return "signal" if end is None and self.stop() else end

    def _end(self) -> RunEnd | None:
        """Why not to make another step."""
        patience = self.settings.held_out.patience
        if patience is not None and self.best.since >= patience:
            return "held-out reward"
        return "finished" if self.step >= self.settings.iterations else None

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.iterations

    # --- on the side

    def _measure(self) -> dict[str, float]:
        """Reward and KL on held-out prompts and seeds, the same every time.

        Without held-out prompts the KL of the last weights is still measured when there is a budget
        to keep, on training prompts: the loop itself only knows it of the weights before.
        """
        settings = self.settings
        prompts = self.prompts.held_out
        if not prompts and settings.kl_budget_nats is None:
            return {}
        chosen = prompts or self.prompts.training[: settings.prompts_per_iteration]
        repeated = [each for each in chosen for _ in range(settings.held_out.images_per_prompt)]
        rollout = collect(
            self.policy,
            self.rewards.held_out,
            repeated,
            seeds=HELD_OUT_SEEDS[: len(repeated)],
            batch_size=self.batch_size,
            on_progress=self._showing("measuring on held-out prompts", "images"),
        )
        kl = measure_kl(self.policy, rollout.batch)
        if not prompts:
            return {"held_out_kl": kl}
        reward = rollout.metrics()["reward_mean"]
        budget = settings.kl_budget_nats
        self.best.add(self.step, reward, inside_budget=budget is None or kl <= budget)
        return {"held_out_reward": reward, "held_out_kl": kl}

    def _check(self) -> None:
        """Refuse to train where a correctness rule does not hold."""
        fresh = self.step == 0
        self.line.part("checking what training stands on", 0, 1, "")
        checks = examine_policy(self.policy, self.prompts.training, self.settings, fresh=fresh)
        require(checks)
        floor = next(check for check in checks if check.name.startswith("noise floor"))
        self.line.say(
            f"{len(checks)} checks passed; {floor.name}: {floor.measured}, "
            f"expected {floor.expected}"
        )

    def _draw(self) -> None:
        samples = self.settings.samples
        prompts = (self.prompts.held_out + self.prompts.training)[: samples.num_prompts]
        columns = samples.images_per_prompt
        self.line.part("drawing samples", 0, len(prompts) * columns, "images")
        images = self.paint(
            [prompt for prompt in prompts for _ in range(columns)],
            [*range(columns)] * len(prompts),
        )
        name = f"{step_folder(self.out, self.step).name}.png"
        save_grid(images, self.out / "samples" / name, columns=columns)

    def _showing(self, doing: str, unit: str) -> Callable[[int, int], None]:
        return lambda done, total: self.line.part(doing, done, total, unit)

    def _record(self, metrics: MetricsWriter, values: Mapping[str, Value]) -> None:
        if values:
            metrics.write(self.step, values)
            if self.on_step is not None:
                self.on_step(self.step, values)

    def _report(self, values: Mapping[str, float]) -> None:
        """Status file and progress line."""
        total = self.settings.iterations
        eta = None
        if self.seconds:
            eta = sum(self.seconds) / len(self.seconds) * (total - self.step)
            shown = {"reward": values["reward_mean"], "kl": values["kl"]}
            if "held_out_reward" in values:
                shown["held-out"] = values["held_out_reward"]
            self.line.advance(self.step, shown, eta_seconds=eta)
        write_status(
            self.out, RunStatus.of_this_process("running", self.step, total, eta_seconds=eta)
        )

    def newest(self) -> Path | None:
        """The checkpoint to use: the best on held-out prompts, else the last one."""
        if self.best.step and step_folder(self.out, self.best.step).is_dir():
            return step_folder(self.out, self.best.step)
        return next(iter(reversed(checkpoints(self.out))), None)


def examine_policy(
    policy: Policy, prompts: Sequence[str], settings: TrainConfig, *, fresh: bool
) -> list[Check]:
    """The doctor's checks on one batch of new samples, of the size that training uses."""
    count = settings.policy.batch_size
    with torch.no_grad():
        trajectory = policy.sample(
            [prompts[number % len(prompts)] for number in range(count)],
            seeds=HELD_OUT_SEEDS[:count],
        )
    return examine(policy, trajectory, config=settings.ppo, fresh=fresh)


def rng_apart() -> AbstractContextManager[None]:
    """What happens inside leaves torch's global generators as they were."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))


def rng_state() -> dict[str, Any]:
    """The global generators of torch, for policies and rewards that draw from them."""
    on_gpu = torch.cuda.is_available()
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if on_gpu else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` gave, as far as the same devices are here."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
