"""Fine-tuning a policy on a reward or on given samples, in a run folder that can be resumed.

Rewards are handed in. Left out: parsing a command line and loading reward models (cli/).
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import Signals

import torch

from imgalign.algorithms.beta import AutoBetaConfig
from imgalign.algorithms.choice import build_algorithm
from imgalign.algorithms.objectives import DirectConfig
from imgalign.config import load_config
from imgalign.environment import choose_device, choose_dtype
from imgalign.errors import ConfigError
from imgalign.files import lock_folder, reporting_full_disk
from imgalign.policy import Check, RewardModel, StepPolicy
from imgalign.prompts import Prompts
from imgalign.runs.folder import CONFIG
from imgalign.runs.progress import working
from imgalign.runs.status import RunState
from imgalign.runs.world import (
    World,
    join_world,
    refuse_one_gpu_for_all,
    share_weights,
    writes_files,
)
from imgalign.train.assemble import load_policy, refuse_by_model
from imgalign.train.config import TrainConfig
from imgalign.train.data.demonstrations import GivenSamples
from imgalign.train.data.rollouts import NO_REWARD
from imgalign.train.data.source import Parts, Source
from imgalign.train.loop import Rewards, Session, examine, rng_apart
from imgalign.train.memory import within_memory
from imgalign.train.recorder import OnStep, Recorder
from imgalign.train.schedule import within_an_epoch
from imgalign.train.starting import begin, claim, newest_of, prompts_to_use, refuse_data
from imgalign.train.stopping import RunEnd, StopRequest
from imgalign.train.trackers import refuse_missing

log = logging.getLogger(__name__)

GO_ON = "checkpoints are intact, go on with --resume"
"""What to do after a process of a run has died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. Example: end "held-out reward", step 40, checkpoint runs/a/step-000020."""

    folder: Path
    end: RunEnd
    step: int
    """The last iteration whose weights were kept."""
    total: int
    checkpoint: Path | None
    """The one to use: best on held-out prompts, else the last. None without any iteration."""
    message: str
    """One line for a person."""
    signal: Signals | None = None

    @property
    def exit_code(self) -> int:
        """For the process: 0, or what a shell makes of a signal: 130 Ctrl-C, 143 TERM, 129 HUP."""
        return 0 if self.signal is None else 128 + self.signal


def run(
    settings: TrainConfig,
    *,
    reward: RewardModel | None,
    held_out_reward: RewardModel | None = None,
    out: Path,
    resume: bool = False,
    policy: StepPolicy | None = None,
    on_step: OnStep | None = None,
    world: World | None = None,
) -> RunResult:
    """Train in the folder `out`, which must be new, or hold this run when `resume` is set.

    `policy` replaces the model that the settings name. `world` is the processes that train
    together, each of which calls this and sees the same folder; without it there is one. SIGTERM,
    SIGHUP and Ctrl-C, in any of them, end the run after saving; `RunResult.signal` names the signal
    in the process that got it. Where a batch does not fit into the device's memory, it goes on with
    half of it (memory.py). Errors are of `imgalign.errors`, and leave the newest checkpoint intact.
    """
    if reward is None and settings.data.gives == "rollouts":
        raise ConfigError(NO_REWARD)
    refuse_missing(settings.run.trackers)
    world = world or join_world(cure=GO_ON, can_share=True)
    refuse_processes(world, settings)
    if writes_files(world):
        claim(out, resume=resume)
    prompts = prompts_to_use(out, settings, resume=resume)
    refuse_data(settings, prompts, resume=resume, num_processes=world.size)
    settings = with_iterations(settings, prompts, begun=out if resume else None)
    recorder = Recorder(out, settings.run, writes=writes_files(world), on_step=on_step)
    if not resume:
        rewards = {"reward.path": reward, "reward.held_out": held_out_reward}
        refuse_by_model(settings, prompts, policy, rewards=rewards)
    lock = held(out) if recorder.writes else nullcontext()
    with lock, StopRequest() as stop, rng_apart():
        settings, checkpoint = begin_together(out, settings, prompts, resume=resume, world=world)

        def attempt(settings: TrainConfig, checkpoint: Path | None) -> tuple[Session, RunEnd]:
            torch.manual_seed(settings.seed)
            recorder.say("running", 0)
            with working("loading the model", shown=recorder.writes):
                used = share_weights(policy or load_policy(settings, resumed=checkpoint), world)
            session = Session(
                settings,
                policy=used,
                rewards=Rewards(training=reward, held_out=held_out_reward or reward),
                prompts=prompts,
                source=source_of(settings, used, reward, prompts, out, world),
                recorder=recorder,
                stop=stop,
                world=world,
            )
            if checkpoint is not None:
                session.resume(checkpoint)
            return session, session.go()

        try:
            if policy is None:
                newest = partial(newest_of, out, settings)
                session, end = within_memory(
                    attempt, settings, checkpoint, newest=newest, world=world
                )
            else:  # whose batches are its own
                session, end = attempt(settings, checkpoint)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            recorder.leave_word("stopped" if stopped else "failed", error)
            raise
        message = reason_of(end, session)
        state: RunState = "stopped" if end == "signal" else "finished"
        recorder.say(state, session.step, message=message)
        return RunResult(
            folder=out,
            end=end,
            step=session.step,
            total=settings.run.total,
            checkpoint=session.newest(),
            message=message,
            signal=stop.signal if end == "signal" else None,
        )


def source_of(
    settings: TrainConfig,
    policy: StepPolicy,
    reward: RewardModel | None,
    prompts: Prompts,
    out: Path,
    world: World,
) -> Source:
    """What the run learns from."""
    parts = Parts(
        policy=policy, reward=reward, prompts=prompts, run=out, seed=settings.seed, world=world
    )
    source = settings.data.build(parts)
    say_passes(source, settings.run.total)
    return source


def diagnose(settings: TrainConfig, *, policy: StepPolicy | None = None) -> list[Check]:
    """Run all checks on a fresh policy with these settings, without training."""
    prompts = settings.data.load_prompts()
    algorithm = build_algorithm(settings.scoring_algorithm, seed=settings.seed)
    with rng_apart():
        return examine(policy or load_policy(settings), algorithm, prompts, fresh=True)


def held(out: Path) -> AbstractContextManager[None]:
    """The folder of a run, made if need be, which nobody else trains in meanwhile."""
    with reporting_full_disk(out, "making the run folder"):
        out.mkdir(parents=True, exist_ok=True)
    return lock_folder(out, doing="training")


def refuse_processes(world: World, settings: TrainConfig) -> None:
    """ConfigError where several processes could not learn together with these settings."""
    refuse_one_gpu_for_all(world, settings.run.device, setting="run.device")
    if world.shares_weights and settings.policy.train == "full":
        raise ConfigError(
            "policy.train: expected lora with FSDP, which shares the weights that are not trained, "
            "got full; set policy.train=lora, or launch with configs/accelerate/ddp.yaml"
        )


def begin_together(
    out: Path, settings: TrainConfig, prompts: Prompts, *, resume: bool, world: World
) -> tuple[TrainConfig, Path | None]:
    """Begin a run's folder in the process that writes; no other goes on before.

    Returns what that one decided: the settings with the number type in them, and the checkpoint to
    resume from.
    """
    dtype: str = settings.policy.dtype
    checkpoint = None
    if writes_files(world):
        warn_of_free_beta(settings)
        dtype = settled_dtype(settings, out if resume else None)
        checkpoint = begin(out, with_dtype(settings, dtype), prompts, resume=resume)
    dtype, checkpoint = world.gather((dtype, checkpoint))[0]
    return with_dtype(settings, dtype), checkpoint


def with_iterations(settings: TrainConfig, prompts: Prompts, *, begun: Path | None) -> TrainConfig:
    """The settings with a number of iterations; a run that has `begun` keeps its own."""
    run = settings.run
    if run.iterations is None and begun is not None:
        own = load_config(TrainConfig, begun / CONFIG).run.iterations
        run = run.model_copy(update={"iterations": own})
    if run.iterations is None:
        amount = settings.data.amount(prompts)
        assert amount is not None, "given examples have one"
        run = within_an_epoch(run, amount)
    return settings.model_copy(update={"run": run})


def with_dtype(settings: TrainConfig, dtype: str) -> TrainConfig:
    """The settings with a number type."""
    policy = settings.policy.model_copy(update={"dtype": dtype})
    return settings.model_copy(update={"policy": policy})


def settled_dtype(settings: TrainConfig, begun: Path | None) -> str:
    """The number type that "auto" resolves to.

    A run that was `begun` keeps its type when it is resumed on another machine.
    """
    name = settings.policy.dtype
    if name == "auto" and begun is not None:
        name = load_config(TrainConfig, begun / CONFIG).policy.dtype
    return str(choose_dtype(name, choose_device(settings.run.device))).removeprefix("torch.")


def say_passes(source: Source, iterations: int) -> None:
    """Say of given examples how many epochs the iterations are."""
    if isinstance(source, GivenSamples):
        log.info(
            "%d iterations of %d examples: each of %d is learned from %.3g times",
            *(iterations, source.count, len(source.examples), source.passes(iterations)),
        )


def warn_of_free_beta(settings: TrainConfig) -> None:
    """Warn of a run that ends before its beta is fixed."""
    algorithm = settings.algorithm
    if not isinstance(algorithm, DirectConfig) or not isinstance(algorithm.beta, AutoBetaConfig):
        return
    steps, total = algorithm.beta.steps, settings.run.total * algorithm.minibatches
    if steps >= total:
        log.warning(
            "algorithm.beta.steps: beta is fixed after %d optimizer steps, of which this run has "
            "%d, so nothing keeps it near the pretrained model; lower it, or raise run.iterations",
            steps,
            total,
        )


def no_gain_of(session: Session) -> str:
    """Says that no weights were better on held-out prompts than those at the start; else empty."""
    best = session.best
    if best.step != 0 or not session.step:
        return ""
    loss = best.criterion == "held_out_preference_loss"
    better = f"{'below' if loss else 'above'} its {best.measured:.4g} at the start"
    reached = f"was never {better}"
    if best.refused:
        reached = f"was {better} only beyond a limit of the run"
    return (
        f"; the held-out {'loss' if loss else 'reward'} {reached}, so no checkpoint is marked as "
        "best and the last one is used; lower optimizer.learning_rate, or "
        f"{'judge more samples' if loss else 'train for longer'}"
    )


def reason_of(end: RunEnd, session: Session) -> str:
    """Why the run ended and how to continue, in one line."""
    step, settings = session.step, session.settings
    best, no_gain = session.best, no_gain_of(session)
    match end:
        case "finished":
            return f"finished at iteration {step}{no_gain}"
        case "kl budget":
            return (
                f"the KL budget of {settings.run.kl_budget_nats:g} nats is spent; kept iteration "
                f"{step}, the last one inside it"
            )
        case "held-out reward" | "held-out loss":
            moved = "risen" if end == "held-out reward" else "fallen"
            return (
                f"the {end} has not {moved} for {best.since} measurements; the best was iteration "
                f"{best.step}{no_gain}"
            )
        case "chosen drop":
            assert isinstance(settings.algorithm, DirectConfig)
            return (
                f"the best of held-out rankings are {best.chosen_drop:.4g} nats less likely "
                f"than at the start, more than algorithm.max_chosen_drop, "
                f"{settings.algorithm.max_chosen_drop}; the best was iteration {best.step}{no_gain}"
            )
        case "signal":
            return f"stopped at iteration {step}; resume with --resume"
