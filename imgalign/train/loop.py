"""The training loop: get a batch, update, measure on held-out prompts, save, decide when to stop.

`step` counts finished iterations: `step-000200` holds the weights after 200 iterations with all
state that is needed to resume exactly. Numerical errors end the run with a one-line error, and the
newest checkpoint stays intact.
"""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imgalign.algorithms.checks import require
from imgalign.algorithms.interface import JUDGED, Algorithm, Compared, HeldOutMeasure
from imgalign.errors import ConfigError
from imgalign.policy import Check, RewardModel, StepPolicy
from imgalign.prompts import Prompts
from imgalign.runs.checkpoint import checkpoints, step_folder
from imgalign.runs.state import save_state
from imgalign.runs.world import World
from imgalign.train.assemble import build_learner
from imgalign.train.budget import Budget, Snapshot
from imgalign.train.config import TrainConfig
from imgalign.train.cost import Cost
from imgalign.train.data.source import Source
from imgalign.train.learner import Learner
from imgalign.train.recorder import Recorder
from imgalign.train.starting import STATE, load_trainer_state
from imgalign.train.stopping import BestSoFar, RunEnd, StopRequest
from imgalign.train.watch import HELD_OUT_SEEDS, Measured, measure
from imgalign.train.watcher import Interrupted, Watcher

log = logging.getLogger(__name__)

NOTHING_COMPARED = (
    "no ranking of a held-out prompt prefers a sample to another, so nothing is measured on them, "
    "and neither the best checkpoint nor the end of the run follows them; raise "
    "data.held_out.num_prompts, or rank more samples"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewards:
    """The reward that a run maximises, and the one that it measures on held-out prompts."""

    training: RewardModel | None
    held_out: RewardModel | None


class Session:
    """A run from its start or a checkpoint to its end, as one process of its world goes through it.

    All processes take the same branches: what decides is the same in all, or agreed on.
    """

    def __init__(
        self,
        settings: TrainConfig,
        *,
        policy: StepPolicy,
        rewards: Rewards,
        prompts: Prompts,
        source: Source,
        recorder: Recorder,
        stop: StopRequest,
        world: World,
    ) -> None:
        self.settings = settings
        self.policy = policy
        self.rewards = rewards
        self.prompts = prompts
        self.recorder = recorder
        self.stop = stop
        self.world = world
        self.step = 0
        rewarded = rewards.held_out is not None and bool(prompts.held_out)
        self.best = BestSoFar(
            criterion="held_out_reward" if rewarded else "held_out_preference_loss"
        )
        self._said_nothing_compared = False
        self.budget = Budget(settings.run.kl_budget_nats)
        self.saved_step: int | None = None
        self.learner = self._new_learner()
        self.source = source
        self.seconds: list[float] = []

    def _new_learner(self) -> Learner:
        settings = self.settings
        return build_learner(
            self.policy,
            algorithm=settings.scoring_algorithm,
            optimizer=settings.optimizer,
            seed=settings.seed,
            world=self.world,
            reward=self.rewards.training,
        )

    # --- state

    def whole_state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights, including the snapshot inside the KL budget.

        Whether these weights are inside is only measured by the next iteration, so a resumed run
        needs the earlier ones that are.
        """
        inside = self.budget.inside
        return {**self.state_dict(), "inside": None if inside is None else inside.state_dict()}

    def state_dict(self) -> dict[str, Any]:
        """All state but the weights; prompts and seeds follow from the iteration's number."""
        return {
            "step": self.step,
            "learner": self.learner.state_dict(),
            "best": self.best.state_dict(),
            "rng": rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        self.step = state["step"]
        self.learner.load_state_dict(state["learner"])
        # Older states have no criterion.
        self.best = BestSoFar.from_state({**state["best"], "criterion": self.best.criterion})
        set_rng_state(state["rng"])

    def resume(self, checkpoint: Path) -> None:
        """Restore a verified checkpoint."""
        state = load_trainer_state(checkpoint)
        self.policy.load(checkpoint)
        # Loading may have put new tensors in place of those that the optimizer knows.
        self.learner = self._new_learner()
        self.load_state_dict(state)
        self.budget.restore(state.get("inside"))
        self.saved_step = self.step
        self.recorder.go_back(self.step, best=self.best)

    def save(self) -> None:
        """Write a checkpoint unless this iteration has one; none at 0, the pretrained model.

        No process goes on before it is written.
        """
        if self.step in (0, self.saved_step):
            return

        def write(folder: Path) -> None:
            self.policy.save(folder)
            save_state(folder, STATE, self.whole_state())

        self.recorder.save(self.step, write, best=self.best)
        self.world.wait()
        self.saved_step = self.step

    def _snapshot(self) -> Snapshot | None:
        budget = self.budget.nats
        if budget is None:
            return None
        return Snapshot(
            weights=self.learner.weights(),
            state=self.state_dict(),
            budget=budget,
            remembered=self.policy.remembered,
        )

    def _back_inside_budget(self, spent: float) -> None:
        """Restore the last weights whose KL was inside the budget; remove later checkpoints.

        ConfigError where a run was resumed with a smaller budget than its weights had spent.
        """
        inside = self.budget.inside
        if inside is None:
            raise ConfigError(
                f"run.kl_budget_nats: expected at least {spent:.4g}, the KL of iteration "
                f"{self.step - 1} that the run was resumed from, got {self.budget.nats}; resume "
                "with more, or start a new run"
            )
        self.learner.set_weights(inside.weights)
        self.policy.remembered = inside.remembered
        self.load_state_dict(inside.state)
        self.recorder.go_back(self.step, best=self.best)
        saved = self.world.agree(self.recorder.holds(self.step))
        self.saved_step = self.step if saved else None

    # --- the loop

    def go(self) -> RunEnd:
        """Train until there is a reason to stop; everything is saved when it returns."""
        with self.recorder.open(self.step):
            self._report({})
            with rng_apart():
                self._check()
            if self.step == 0:
                self.recorder.record(self.step, self._measure())
                self._draw()
            self.budget.pending = self._snapshot()
            if self.step == 0:  # the pretrained model: its KL is 0
                self.budget.inside = self.budget.pending
            end = self._end()
            while end is None:
                try:
                    values = self._iterate()
                except Interrupted:
                    end = "signal"
                    break
                self.recorder.record(self.step, values)
                self._report(values)
                end = self._after(values)
            self.save()
            self.world.wait()  # another process may still need the weights that this one keeps
            return end

    def _iterate(self) -> dict[str, float]:
        """One iteration: a batch, an update, and a measurement where one is due."""
        cost = Cost(self.policy, self.rewards.training)
        before = rng_state()
        try:
            batch = self.source.batch(
                self.step, watcher=self._watcher("sampling", self.settings.policy.samples)
            )
        except Interrupted:
            set_rng_state(before)  # the resumed run makes this batch again
            raise
        values: dict[str, float] = batch.metrics(self.world) | self.learner.update(
            batch, iteration=self.step, on_progress=self._watcher("learning", "parts").on_progress
        )
        values |= cost.of_learning(self.world)
        self.step += 1
        if self._due(self.settings.run.measure_every):
            values |= self._measure()
        values |= cost.in_time(len(batch), self.world)
        self.seconds.append(values["seconds"])
        return values

    def _after(self, values: Mapping[str, float]) -> RunEnd | None:
        """Save and draw samples where due, and return the reason to stop, if any."""
        before, after = values.get("kl"), values.get("held_out_kl")
        if self.world.agree(self.budget.spent(before=before, after=after)):
            self._back_inside_budget(after or 0.0 if before is None else before)
            return "kl budget"
        self.budget.keep(self._snapshot(), before=before, after=after)
        if self._due(self.settings.run.samples.every):
            self._draw()
        end = self._end()
        is_best = self.best.step == self.step
        if end is not None or is_best or self.step % self.settings.run.checkpoint_every == 0:
            self.save()
        return "signal" if end is None and self.world.agree(self.stop()) else end

    def _end(self) -> RunEnd | None:
        """The reason not to make another iteration, if any."""
        patience, best = self.settings.run.patience, self.best
        if best.fell_for_good:
            return "chosen drop"
        if patience is not None and best.since >= patience:
            rewarded = best.criterion == "held_out_reward"
            return "held-out reward" if rewarded else "held-out loss"
        return "finished" if self.step >= self.settings.run.total else None

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.settings.run.total

    # --- on the side

    def _measure(self) -> dict[str, float]:
        """Reward and KL on held-out prompts; without them only the KL, where there is a budget.

        An update itself only measures the KL of the weights before it.
        """
        budget = self.settings.run.kl_budget_nats
        if not self.prompts.held_out and budget is None:
            return {}
        compared = self._measure_rankings()
        measured: Measured = measure(
            self.policy,
            self.rewards.held_out,
            self.prompts,
            images_per_prompt=self.settings.data.held_out.images_per_prompt,
            unfinished_penalty=self.settings.data.penalty,
            world=self.world,
            watcher=Watcher(
                on_progress=self._watcher(
                    "measuring on held-out prompts", self.settings.policy.samples
                ).on_progress
            ),
        )
        inside = budget is None or measured.kl <= budget
        drop = None if compared is None else compared.chosen_drop
        score = measured.reward
        if score is None and compared is not None and compared.loss is not None:
            score = -compared.loss
        if score is not None:
            self.best.add(self.step, score, allowed=inside and drop is None)
        self.best.note_drop(drop)
        return {**measured.metrics(), **({} if compared is None else compared.metrics)}

    def _measure_rankings(self) -> Compared | None:
        """Of an algorithm that measures rankings which it does not learn from, where there are."""
        algorithm = self.learner.algorithm
        if self.settings.data.gives not in JUDGED or not isinstance(algorithm, HeldOutMeasure):
            return None
        watcher = self._watcher("encoding", self.settings.policy.samples)
        batch = self.source.held_out(watcher=Watcher(on_progress=watcher.on_progress))
        compared: Compared | None = None
        if batch is not None:
            with torch.no_grad():
                compared = algorithm.held_out(self.policy, batch, world=self.world)
        if compared is None and self.prompts.held_out and not self._said_nothing_compared:
            self._said_nothing_compared = True
            if self.recorder.writes:
                log.warning(NOTHING_COMPARED)
        return compared

    def _check(self) -> None:
        """Run the correctness checks; NumericsError where one fails."""
        line = self.recorder.line
        line.part("checking ratios, KL and gradients", 0, 1, "")
        checks = examine(self.policy, self.learner.algorithm, self.prompts, fresh=self.step == 0)
        require(checks)
        line.say(f"{len(checks)} checks passed")
        for check in checks:
            if check.name.startswith("noise floor"):
                line.say(f"{check.name}: {check.measured}, expected {check.expected}")

    def _draw(self) -> None:
        self.recorder.draw(self.policy, self.prompts, self.step)

    def _watcher(self, doing: str, unit: str) -> Watcher:
        return Watcher(
            stop_requested=self.stop,
            on_progress=lambda done, total: self.recorder.line.part(doing, done, total, unit),
        )

    def _report(self, values: Mapping[str, float]) -> None:
        self.recorder.progress(self.step, values, seconds=self.seconds)

    def newest(self) -> Path | None:
        """The checkpoint to use: best on held-out prompts, else the last one."""
        out = self.recorder.out
        if self.best.step and self.recorder.holds(self.best.step):
            return step_folder(out, self.best.step)
        return next(iter(reversed(checkpoints(out))), None)


def examine(
    policy: StepPolicy, algorithm: Algorithm[Any], prompts: Prompts, *, fresh: bool
) -> list[Check]:
    """The checks of policy and algorithm on new samples, one batch of the policy's size."""
    count = policy.batch_size
    with torch.no_grad():
        trajectory = policy.sample(
            [prompts.training[number % len(prompts.training)] for number in range(count)],
            seeds=HELD_OUT_SEEDS[:count],
        )
    return [*algorithm.checks(policy, trajectory, fresh=fresh), *policy.checks()]


def rng_apart() -> AbstractContextManager[None]:
    """A context that leaves torch's global random generators as they were."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))


def rng_state() -> dict[str, Any]:
    """State of torch's global random generators, which policies and rewards may draw from."""
    on_gpu = torch.cuda.is_available()
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if on_gpu else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore `rng_state`, as far as the same devices are present."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
