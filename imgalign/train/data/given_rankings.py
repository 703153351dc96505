"""Judgements of given samples: the settings that all their sources share, and their batches.

A judgement is a ranking, or a like or dislike of one sample. They are read once, when a run begins,
and written to rankings.jsonl: a resumed run learns from the same ones, whatever has been judged
since. Each sample is read and encoded once, before the first batch; encoded.py says what is kept on
disk. Judgements of a sample that cannot be read are left out, and the samples named. Left out:
where they come from (rankings.py, texts.py).

Shapes: r = judgements of a batch, k = candidates of the longest one.
"""

import logging
import time
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import PositiveInt

from imgalign.algorithms.choice import AlgorithmConfig
from imgalign.algorithms.interface import BatchKind
from imgalign.algorithms.rankings import RankedBatch
from imgalign.errors import ConfigError, ImgalignError, InputError
from imgalign.policy import Data, LikelihoodPolicy, RewardModel, join_data
from imgalign.preferences.foreign.records import GivenRanking
from imgalign.preferences.records import Samples
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import Prompts, epoch_positions, stable_hash
from imgalign.runs.world import World, writes_files
from imgalign.train.data.encoded import EncodedSamples, folder_of
from imgalign.train.data.judged import (
    LEFT_OUT,
    NAMES_SHOWN,
    RECORD,
    Given,
    SampleLoader,
    add_left_out,
    counts_of,
    read_record,
    write_left_out,
    write_record,
)
from imgalign.train.data.kept_texts import kept_texts, loader_of, write_texts
from imgalign.train.data.source import DataSection, Known, Parts, some_of
from imgalign.train.watcher import SILENT, Watcher, cut

log = logging.getLogger(__name__)

USUAL_RANKINGS = 16


class JudgedConfig(DataSection):
    """Given samples that were judged, wherever they come from."""

    what: ClassVar[str]
    """What is counted, in the plural. Example: "rankings"."""

    @property
    @abstractmethod
    def asked(self) -> int | None:
        """How many an iteration learns from; None for as many as is usual."""

    @property
    @abstractmethod
    def usual(self) -> int:
        """How many an iteration learns from where the settings do not say."""

    @property
    @abstractmethod
    def most_measured(self) -> int:
        """How many of held-out prompts are measured."""

    def taken(self, available: int) -> int:
        """How many of those available an iteration learns from."""
        return self.asked or min(self.usual, available)

    @property
    def given_samples(self) -> Samples:
        """Images, unless a source says otherwise."""
        return "images"

    @property
    def groups(self) -> int | None:
        """One for each judgement."""
        return self.asked or self.usual

    @cached_property
    def given(self) -> Given:
        """What `read` finds; read once, since it may decode every image."""
        return self.read()

    @abstractmethod
    def read(self) -> Given:
        """The judgements as they are now; InputError where there are none."""

    def known_prompts(self) -> Known:
        """Those of the judgements."""
        training = tuple(dict.fromkeys(each.prompt for each in self.given.rankings))
        held_out = some_of(training, self.held_out)
        if self.held_out.asked_for and self.held_out.file is None and not held_out:
            raise InputError(
                f"{self.given.where}: expected at least 4 prompts, a quarter of which is held out, "
                f"got {len(training)}; add {self.what} of more prompts, or choose by "
                "data.held_out.num_prompts, where 0 measures nothing"
            )
        return Known(training, held_out, self.given.where)

    def amount(self, prompts: Prompts) -> None:
        """Nothing: `refuse_rankings` counts those of a new run."""

    def refuse_rankings(
        self, algorithm: AlgorithmConfig, prompts: Prompts, *, num_processes: int
    ) -> None:
        """Of those whose prompts are not held out."""
        apart = set(map(prompt_key, prompts.held_out))
        training = [each for each in self.given.rankings if prompt_key(each.prompt) not in apart]
        where = f"{self.given.where}{', without held-out prompts' if apart else ''}"
        try:
            algorithm.refuse_rankings(counts_of(training))
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        self.refuse_number(len(training), at_least=num_processes)
        self.refuse_measured(len(self.given.rankings) - len(training), num_processes=num_processes)

    def refuse_number(self, available: int, *, at_least: int) -> None:
        """ConfigError for more judgements than there are, or of less than processes."""
        if not at_least <= (asked := self.taken(available)) <= available:
            raise ConfigError(
                f"data.{self.what}_per_iteration: expected {at_least} to {available}, the number "
                f"of {self.what} whose prompts are not held out, got {asked}"
            )

    def refuse_measured(self, available: int, *, num_processes: int) -> None:
        """ConfigError for judgements that are only measured, but fewer than processes."""
        if 0 < (measured := min(available, self.most_measured)) < num_processes:
            raise ConfigError(
                f"data.held_out: expected at least {num_processes} {self.what} of held-out "
                f"prompts, one for each process, got {measured}; start fewer processes, or hold "
                "out more prompts by data.held_out.num_prompts"
            )

    def build(self, parts: Parts) -> "GivenRankings":
        """A source that learns from the judgements that the run keeps."""
        policy = parts.scoring_policy()
        return GivenRankings(
            self,
            read_record(parts.run / RECORD),
            self.loader(parts.run),
            policy=policy,
            reward=parts.reward,
            encoded=EncodedSamples(folder_of(policy.encoding)),
            held_out=parts.prompts.held_out,
            run=parts.run,
            seed=parts.seed,
            world=parts.world,
        )

    def loader(self, run: Path | None = None) -> SampleLoader:
        """What loads the samples; texts are those that a run keeps."""
        if run is not None and self.given_samples == "texts":
            return loader_of(kept_texts(run))
        return self.given.load

    def keep(self, run: Path) -> None:
        """The judgements and their texts, so that a resumed run learns from the same ones, and what
        is left out.
        """
        write_record(run / RECORD, self.given.rankings)
        write_left_out(run / LEFT_OUT, self.given.left_out)
        if self.given_samples == "texts":
            write_texts(run, self.given)

    def moved(self, run: Path) -> frozenset[str]:
        """Any place may: the judgements are recorded, with the hashes of their samples."""
        return frozenset({"database", "originals", "folder", "file"})


class GivenRankingsConfig(JudgedConfig):
    """Rankings of given samples, wherever they come from."""

    gives: ClassVar[BatchKind] = "rankings"
    what: ClassVar[str] = "rankings"

    held_out_rankings: PositiveInt = 64
    """How many rankings of held-out prompts are measured."""

    rankings_per_iteration: PositiveInt | None = None
    """Rankings in each iteration; every one comes once before any comes again. Null is 16, or all
    of them where there are fewer."""

    @property
    def asked(self) -> int | None:
        """By the setting."""
        return self.rankings_per_iteration

    @property
    def usual(self) -> int:
        """Rankings."""
        return USUAL_RANKINGS

    @property
    def most_measured(self) -> int:
        """By the setting."""
        return self.held_out_rankings


class GivenRankings:
    """Judgements of given samples: batches to learn from, and one that is only measured.

    With a `reward` every candidate has its score too.
    """

    def __init__(
        self,
        config: JudgedConfig,
        rankings: Sequence[GivenRanking],
        load: SampleLoader,
        *,
        policy: LikelihoodPolicy,
        reward: RewardModel | None,
        encoded: EncodedSamples,
        held_out: Collection[str],
        run: Path,
        seed: int,
        world: World,
    ) -> None:
        apart = set(map(prompt_key, held_out))
        self.config = config
        self.load = load
        self.policy = policy
        self.reward = reward
        self.encoded = encoded
        self.run = run
        self.seed = seed
        self.world = world
        self.training = [each for each in rankings if prompt_key(each.prompt) not in apart]
        others = [each for each in rankings if prompt_key(each.prompt) in apart]
        # By their hash, so that another number of them changes few.
        others.sort(key=lambda each: stable_hash(f"{each.prompt}\n{each.images}\n{each.ranks}"))
        self.measured = others[: config.most_measured]
        self.scores: dict[tuple[str, str], float] = {}
        self._prepared, self._ties = False, False

    def batch(self, iteration: int, *, watcher: Watcher = SILENT) -> RankedBatch:
        """The next judgements, in an order that is new each time all have come once."""
        start = time.perf_counter()
        self._prepare(watcher)
        count = self.config.taken(len(self.training))
        places = epoch_positions(len(self.training), iteration, count=count, seed=self.seed)
        chosen = [self.training[places[place]] for place in self.world.deal(count)]
        return self._as_batch(chosen, seconds=time.perf_counter() - start)

    def held_out(self, *, watcher: Watcher = SILENT) -> RankedBatch | None:
        """The share of this process in the judgements that are only measured; None without any."""
        self._prepare(watcher)
        if not self.measured:
            return None
        mine = self.world.deal(len(self.measured))
        return self._as_batch([self.measured[place] for place in mine], seconds=0.0)

    def _as_batch(self, chosen: Sequence[GivenRanking], *, seconds: float) -> RankedBatch:
        k = max((len(each.images) for each in (*self.training, *self.measured)), default=0)
        index, order = torch.full((2, len(chosen), k), -1)
        scores = torch.full((len(chosen), k), torch.nan)
        parts: list[Data] = []
        for row, each in enumerate(chosen):
            count = len(each.images)
            index[row, :count] = torch.arange(len(parts), len(parts) + count)
            order[row, :count] = torch.tensor(each.ranks)
            for place, image in enumerate(each.images):
                scores[row, place] = self.scores.get((each.prompt, image), torch.nan)
                seed = None if each.seeds is None else each.seeds[place]
                parts.append(self._data(each.prompt, image, seed=seed))
        return RankedBatch(
            data=join_data(parts),
            index=index,
            ranks=order,
            all_bad=torch.tensor([each.all_bad for each in chosen], dtype=torch.bool),
            all_good=torch.tensor([each.all_good for each in chosen], dtype=torch.bool),
            weights=torch.tensor([each.weight for each in chosen]),
            scores=None if self.reward is None else scores,
            seconds={"seconds_loading": seconds},
            ties=self._ties,
        )

    def _data(self, prompt: str, image: str, *, seed: int | None) -> Data:
        noise = {} if seed is None else self.policy.starting_noise([seed])
        return Data(prompts=[prompt], prompt_ids=[prompt], content={**self.encoded[image], **noise})

    def _prepare(self, watcher: Watcher) -> None:
        """Encode and score what is not yet; leave out judgements of what cannot be read."""
        if self._prepared:
            return
        if lost := self._encode(watcher):
            self._leave_out(lost)
        if not self.training:
            raise InputError(f"data.from: none of the {self.config.what} is left to learn from")
        self.config.refuse_number(len(self.training), at_least=self.world.size)
        self.config.refuse_measured(len(self.measured), num_processes=self.world.size)
        if self.reward is not None:
            self._score(self.reward, watcher)
        self._ties = any(has_ties(each.ranks) for each in (*self.training, *self.measured))
        self._prepared = True

    def _leave_out(self, lost: Mapping[str, str]) -> None:
        """Leave out the judgements of samples that cannot be used, for the reasons in `lost`."""
        before = len(self.training) + len(self.measured)
        self.training, self.measured = (
            [each for each in judged if not lost.keys() & set(each.images)]
            for judged in (self.training, self.measured)
        )
        kind, what = self.config.given_samples, self.config.what
        gone = before - len(self.training) - len(self.measured)
        log.warning(
            "%s that cannot be used: %d, with which %d of %d %s are left out, see %s (%s)",
            *(kind, len(lost), gone, before, what, self.run / LEFT_OUT),
            "; ".join(list(lost.values())[:NAMES_SHOWN]),
        )
        if writes_files(self.world):
            add_left_out(self.run, {f"{kind[:-1]} {key[:12]}": why for key, why in lost.items()})

    def _encode(self, watcher: Watcher) -> dict[str, str]:
        """Encode all samples; returns why those that cannot be used cannot.

        Each process encodes its share, and what others have encoded it finds on disk.
        """
        prompt_of = self._prompts()
        lost: dict[str, str] = {}
        missing = [image for image in prompt_of if image not in self.encoded]
        for share in (self.world.deal(len(missing)), range(len(missing))):
            for part in cut(len(share), 1, world=self.world, watcher=watcher):
                image = missing[share[part.start]]
                if image in self.encoded or image in lost:
                    continue
                try:
                    content = self.policy.encode([prompt_of[image]], self.load(image)).content
                except ImgalignError as error:
                    lost[image] = f"{error}"
                    continue
                self.encoded.add(image, content)
            self.encoded.flush()
            for others in self.world.gather(lost):
                lost = {**others, **lost}
            if self.world.size == 1:
                break
            self.world.wait()
            self.encoded.look_again()
        return lost

    def _score(self, reward: RewardModel, watcher: Watcher) -> None:
        pairs = [
            (each.prompt, image)
            for each in (*self.training, *self.measured)
            for image in each.images
        ]
        pairs = list(dict.fromkeys(pairs))
        for part in cut(len(pairs), self.policy.batch_size, world=self.world, watcher=watcher):
            for prompt, image in pairs[part]:
                try:
                    with torch.no_grad():
                        score = reward.score(prompts=[prompt], samples=self.load(image))
                except InputError as error:  # such as of a text that it has no room for
                    log.warning("reward: %s", error)
                    continue
                self.scores[prompt, image] = score.item()

    def _prompts(self) -> dict[str, str]:
        """A prompt of each sample."""
        return {
            image: each.prompt for each in (*self.training, *self.measured) for image in each.images
        }


def has_ties(ranks: Sequence[int]) -> bool:
    """Whether two that were ranked share a place."""
    placed = [rank for rank in ranks if rank >= 0]
    return len(set(placed)) < len(placed)
