"""CLIP with a preference head as a reward model: prompts and images to standardised scores.

An unfitted head ranks as zero-shot CLIP does, so the baseline is the same class. The folder of a
fitted reward has a contract with golden scores (contract.py). Left out: fitting (fit.py).

Shapes: b = images, m = members (heads), d = width of the towers' shared space, l = d and the width
of the style, where there is one. Images are in [0, 1]; a score is in standard deviations of the
scores of the training images, 0 their mean.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from imgalign.errors import CheckpointError, InputError, NumericsError
from imgalign.images import png, read_tensor, to_image
from imgalign.preferences.fit_report import ZERO_SHOT
from imgalign.preferences.records import Samples
from reward_models.clip_models import load_towers, rebuild_towers
from reward_models.contract import (
    CONTRACT_FILE,
    GOLDEN_FOLDER,
    Contract,
    Golden,
    HeadConfig,
    HeldOut,
    Origin,
    Scale,
    check_files,
    check_golden,
    library_versions,
    read_image_contract,
)
from reward_models.folder import load_weights, save_folder, save_weights
from reward_models.head import PreferenceHead, zero_shot_head
from reward_models.towers import Towers

__all__ = ["ClipReward", "Towers", "load_towers"]

RANGE_SLACK = 0.01
"""Tolerance of the range check on images, which are in [0, 1]."""


class ClipReward(nn.Module):
    """Scores images for prompts; implements the RewardModel protocol."""

    def __init__(
        self,
        towers: Towers,
        heads: Sequence[PreferenceHead],
        *,
        head: HeadConfig | None = None,
        scale: Scale | None = None,
        log_tie: Sequence[float] = (),
        held_out: HeldOut | None = None,
        origin: Origin | None = None,
    ) -> None:
        super().__init__()
        self.towers = towers
        self.heads = nn.ModuleList(heads)
        self.head_config = head or HeadConfig()
        self.scale = scale or Scale()
        self.log_tie = tuple(log_tie)
        self.held_out = held_out
        self.origin = origin

    @classmethod
    def zero_shot(cls, towers: Towers) -> "ClipReward":
        """The baseline: the score is the cosine of the image and the prompt, unscaled."""
        head = zero_shot_head(towers.width).to(towers.device)
        config = HeadConfig(hidden=0, style=False)
        return cls(towers, [head], head=config).requires_grad_(False)

    def score(
        self, *, prompts: Sequence[str], samples: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Standardised score of each image for its prompt, differentiable in `samples`.

        Images of any size in [0, 1]. InputError for an empty prompt, another range or another
        number of prompts than images; NumericsError for an image with NaN or infinity.
        """
        return self.member_scores(prompts=prompts, samples=samples).mean(1)

    def member_scores(
        self, *, prompts: Sequence[str], samples: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b m"]:
        """`score` of each head; their spread over m is a measure of uncertainty."""
        self._check(prompts, samples)
        # Under a caller's autocast the scores would leave the golden ones by more than a percent.
        with torch.autocast(self.towers.device.type, enabled=False):
            unique = list(dict.fromkeys(prompts))
            rows = torch.tensor([unique.index(prompt) for prompt in prompts])
            text = self.towers.encode_tokens(self.towers.tokenize(unique))[rows.to(self.device)]
            prepared = self.towers.prepare(samples)
            image = self.towers.image_features(prepared, style=self.head_config.style)
            return (self.utilities(image, text) - self.scale.mean) / self.scale.std

    def utilities(
        self, image: Float[Tensor, "b l"], text: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b m"]:
        """Utility from features, before standardisation: differences are the fit's log-odds."""
        return torch.stack([head(image, text) for head in self.heads], dim=1)

    @property
    def samples(self) -> Samples:
        """What it scores."""
        return "images"

    @property
    def baseline_name(self) -> str:
        """What `baseline` is, for a report."""
        return ZERO_SHOT

    def baseline(self) -> "ClipReward":
        """The zero-shot CLIP that the fit of this reward started from.

        Its own towers if they stayed frozen, else the CLIP that its contract names.
        CheckpointError or InputError where that is unknown, cannot be loaded or has changed.
        """
        origin = self.origin
        if origin is None:
            raise CheckpointError("the contract does not name the CLIP that the fit started from")
        if self.towers.weights_hash() == origin.weights:
            return ClipReward.zero_shot(self.towers)
        towers = load_towers(origin.clip).to(self.device)
        if towers.weights_hash() != origin.weights:
            raise CheckpointError(
                f"{origin.clip}: no longer holds the weights that the fit started from"
            )
        return ClipReward.zero_shot(towers)

    @torch.no_grad()
    def features(self, samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Image embeddings of the CLIP for images in [0, 1], for measures of diversity."""
        return self.towers.encode_prepared(self.towers.prepare(samples))

    @property
    def device(self) -> torch.device:
        """Where scores are computed."""
        return self.towers.device

    def _check(self, prompts: Sequence[str], samples: Tensor) -> None:
        if samples.ndim != 4 or samples.shape[1] != 3:
            raise InputError(f"score: expected samples b 3 h w, got {tuple(samples.shape)}")
        if len(prompts) != len(samples) or not prompts:
            raise InputError(
                f"score: expected a prompt per image, got {len(prompts)} prompts "
                f"and {len(samples)} images"
            )
        finite = samples.detach().isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            broken = (~finite).nonzero().flatten().tolist()
            raise NumericsError(
                f"score: images {broken} of {len(samples)} hold NaN or infinity; "
                "the policy or its decoder has diverged"
            )
        low, high = (float(end) for end in samples.detach().aminmax())
        if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
            raise InputError(
                f"score: expected images in [0, 1], got [{low:.3g}, {high:.3g}]; "
                "rescale them, (x + 1) / 2 where they come from [-1, 1]"
            )

    @classmethod
    def from_pretrained(cls, folder: Path) -> "ClipReward":
        """The reward saved in `folder`, frozen, on the CPU, its golden scores recomputed.

        CheckpointError where something is missing or does not fit, or a score drifted.
        """
        contract = read_image_contract(folder)
        check_files(contract, folder)
        towers = rebuild_towers(contract, folder)
        unset = Generator().manual_seed(0)
        style_width = towers.style_width(style=contract.head.style)
        heads = [
            PreferenceHead(towers.width, contract.head, style_width=style_width, generator=unset)
            for _ in range(contract.head.members)
        ]
        reward = cls(
            towers,
            heads,
            head=contract.head,
            scale=contract.scale,
            log_tie=contract.log_tie,
            held_out=contract.held_out,
            origin=contract.origin,
        )
        load_weights(reward, folder)
        reward.requires_grad_(False).eval()
        if not contract.golden:
            raise CheckpointError(f"{folder}: no golden images in {CONTRACT_FILE}; fit it again")
        check_golden(contract, reward._score_golden(contract.golden, folder), folder=folder)
        return reward

    @torch.no_grad()
    def _score_golden(self, golden: Sequence[Golden], folder: Path) -> list[float]:
        scores = []
        for each in golden:
            try:
                image = read_tensor(folder / each.image)
            except InputError as error:
                raise CheckpointError(f"{error}; copy the whole folder again") from error
            scores.append(float(self.score(prompts=[each.prompt], samples=image[None])))
        return scores

    def save(
        self,
        folder: Path,
        *,
        golden: Sequence[tuple[str, Float[Tensor, "3 _h _w"]]],
        data_hash: str = "",
        metrics: Mapping[str, float] | None = None,
        beside: Callable[[Path], None] = lambda _: None,
    ) -> Contract:
        """Write weights, contract, tokenizer, golden images and what `beside` adds, atomically.

        `golden`: prompts and images whose scores are recomputed at each load; they are stored as
        PNG and scored as stored. `beside` writes further files into the folder it is given. An
        earlier reward model in `folder` is replaced; InputError as of `check_target`. Scores on
        the CPU, whatever the device of the weights.
        """
        assert golden, "a contract without golden scores proves nothing"

        def write(unfinished: Path) -> Contract:
            (unfinished / GOLDEN_FOLDER).mkdir()
            save_weights(self, unfinished)
            self.towers.save_tokenizer(unfinished)
            records = self._write_golden(golden, unfinished)
            return self._contract(records, data_hash, metrics or {})

        device = self.device
        try:
            self.cpu()
            return save_folder(folder, write, beside=beside)
        finally:
            self.to(device)

    def _write_golden(self, golden: Sequence[tuple[str, Tensor]], folder: Path) -> list[Golden]:
        records = []
        for index, (prompt, image) in enumerate(golden):
            name = f"{GOLDEN_FOLDER}/{index}.png"
            (folder / name).write_bytes(png(to_image(image)))
            records.append(Golden(image=name, prompt=prompt, score=0.0))
        scores = self._score_golden(records, folder)
        return [
            record.model_copy(update={"score": score})
            for record, score in zip(records, scores, strict=True)
        ]

    def _contract(
        self, golden: Sequence[Golden], data_hash: str, metrics: Mapping[str, float]
    ) -> Contract:
        return Contract(
            backbone=self.towers.config,
            quick_gelu=self.towers.config.quick_gelu,
            preprocess=self.towers.preprocess,
            text=self.towers.text,
            head=self.head_config,
            scale=self.scale,
            log_tie=self.log_tie,
            held_out=self.held_out,
            origin=self.origin,
            golden=tuple(golden),
            libraries=library_versions(),
            data_hash=data_hash,
            metrics=dict(metrics),
        )
