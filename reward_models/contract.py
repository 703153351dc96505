"""The contract of a fitted reward: everything beside the weights that decides a score.

The activation function, the resize filter, the truncation of prompts and the scale of the scores
change every score without an error if they change. The contract stores them beside the weights,
with four golden images or texts whose scores are recomputed at each load. There are two kinds of
contract, of rewards of images and of texts. Left out: building and running the models
(clip_models.py, clip.py; text_models.py, text.py).

Examples of a folder: contract.json, model.safetensors, tokenizer/, golden/0.png .. golden/3.png;
of a reward of texts the same without golden/.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue, PositiveFloat

from imgalign.config import Seed
from imgalign.errors import CheckpointError
from imgalign.files import describe_folder, sha256
from reward_models.architecture import Architecture, Facts, Pixels, read_settings, validated

CONTRACT_FILE = "contract.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FOLDER = "tokenizer"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_SETTINGS = "tokenizer_config.json"
TOKENIZER_FILES = [f"{TOKENIZER_FOLDER}/{each}" for each in (TOKENIZER_FILE, TOKENIZER_SETTINGS)]
GOLDEN_FOLDER = "golden"
PLOT_FILE = "reliability.png"
GOLDEN_TOLERANCE = 1e-3
"""Largest drift of a golden score, in standard deviations of the training scores."""

LIBRARIES = ("open_clip_torch", "safetensors", "tokenizers", "torch", "torchvision", "transformers")

FILE_NAME = r"^(golden/|tokenizer/)?[0-9A-Za-z_-][0-9A-Za-z_.-]*$"
"""Pattern of files in the folder and in its two subfolders, and nowhere else."""

Channels = tuple[float, float, float]
Spreads = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
ImageSize = Pixels | tuple[Pixels, Pixels]
LongText = Annotated[str, Field(max_length=100_000)]
Share = Annotated[float, Field(ge=0, le=1)]
FileName = Annotated[str, Field(pattern=FILE_NAME)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Preprocess(Facts):
    """Preprocessing of images in [0, 1] for the image tower."""

    image_size: tuple[Pixels, Pixels]
    """Height and width of the image tower's input, in pixels."""

    mean: Channels
    """Subtracted from the red, green and blue channel after resizing."""

    std: Spreads
    """Each channel is divided by this after the mean is subtracted."""

    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    """"shortest" fills the frame and crops the centre, "longest" fits inside it and pads, "squash"
    stretches; the names are open_clip's."""

    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    """Filter of the resize."""

    antialias: Literal[True] = True
    """Always on, as in PIL, which the towers were trained with."""

    fill: Share = 0.0
    """Colour of the padding of "longest", in [0, 1]."""


class TextRule(Facts):
    """Tokenization of prompts."""

    context_length: Annotated[int, Field(ge=3, le=4096)]
    """Context length of the text tower, begin and end token included."""

    truncation: Literal["keep_first"] = "keep_first"
    """Longer prompts keep their first tokens and the end token."""

    tokenizer: Literal["folder", "open_clip"] = "open_clip"
    """"folder": Hugging Face files in tokenizer/; "open_clip": the vocabulary open_clip ships."""


class HeadConfig(Facts):
    """Shape of the preference head."""

    hidden: Annotated[int, Field(ge=0, le=4096)] = 64
    """Width of the hidden layer; 0 leaves the linear part and the cosine only."""

    style: bool = True
    """Add style features to the head's input: channel statistics of the image tower's first stage,
    which respond to light, colour and line. CLIP's image embedding keeps little of these, and
    tastes depend on them."""

    members: Literal[1] = 1
    """How many heads are averaged; the weights are stored per member."""


class Scale(Facts):
    """Standardisation of scores: (utility - mean) / std over the training images or texts."""

    mean: float = 0.0
    """Mean utility of the training samples."""

    std: PositiveFloat = 1.0
    """Standard deviation of the utility over the training samples."""

    log_odds: PositiveFloat | None = None
    """Calibrated log-odds, in nats, that a sample scoring one point higher is preferred; None for a
    reward that was not fitted."""


class HeldOut(Facts):
    """The split of prompts in the fit, by a hash of the prompt, so that it can be repeated."""

    seed: Seed
    """Seed of the hash."""

    validation: Share
    """Share of prompts for early stopping."""

    test: Share
    """Share of prompts in the test split."""


class Golden(Facts):
    """An image whose score is known. Example: golden/0.png, "a red fox", -1.2075."""

    image: Annotated[str, Field(pattern=r"^golden/[0-9A-Za-z_-]+\.png$")]
    """A file of the folder."""

    prompt: LongText
    """What the image is scored for."""

    score: float
    """The score when the folder was written."""

    @property
    def name(self) -> str:
        """For messages."""
        return self.image


class GoldenText(Facts):
    """A text whose score is known. Example: "a cat", "a red cat in the snow", 0.8125."""

    prompt: LongText
    """What the text answers."""

    text: LongText
    """It is scored for the prompt."""

    score: float
    """The score when the folder was written."""

    @property
    def name(self) -> str:
        """For messages."""
        return repr(self.text[:40])


class Origin(Facts):
    """The CLIP that a fit started from; zero-shot, it is the baseline of the fitted reward."""

    clip: LongText
    """As `FitConfig.clip` names it; a folder with its whole path."""

    weights: LongText
    """SHA-256 of the towers' weights, because a name may later refer to others."""


class TextOrigin(Facts):
    """The language model that a fit started from."""

    model: LongText
    """As the settings of the fit name it; a folder with its whole path."""

    weights: LongText
    """SHA-256 of the weights of its body, because a name may later refer to others."""


class SharedFacts(Facts):
    """What contracts of both kinds hold."""

    format: Literal[1] = 1
    """Version of this file."""

    scale: Scale = Scale()
    """Standardisation of the scores."""

    log_tie: Annotated[tuple[float, ...], Field(max_length=256)] = ()
    """Log weights of ties of 2, 3, ... samples in the Davidson-Luce model of the fit, in nats."""

    files: Annotated[dict[FileName, Sha256], Field(min_length=1)] | None = None
    """SHA-256 of each file that decides a score, by its name in the folder; None in contracts of
    older versions."""

    held_out: HeldOut | None = None
    """The split of prompts; None when the reward was not fitted to rankings."""

    libraries: dict[str, str] = Field(default_factory=dict)
    """Versions at the time of the fit; shown when golden scores drift."""

    data_hash: str = ""
    """sha256 over the rankings of the fit."""

    metrics: dict[str, float] = Field(default_factory=dict)
    """Held-out numbers of the fit; see the report beside it for counts and intervals."""


class Contract(SharedFacts):
    """Everything that a reward of images needs beside its weights."""

    kind: Literal["images"] = "images"
    """What it scores; contracts of older versions do not say."""

    backbone: Architecture
    """The open_clip model configuration that the towers are rebuilt from."""

    quick_gelu: bool
    """Whether the towers use the sigmoid approximation of GELU; repeated from the backbone because
    weights trained with one load without an error into the other."""

    preprocess: Preprocess
    """Rules for images."""

    text: TextRule
    """Rules for prompts."""

    head: HeadConfig = HeadConfig()
    """Shape of the preference head."""

    golden: Annotated[tuple[Golden, ...], Field(max_length=64)] = ()
    """Scores to reproduce at each load."""

    origin: Origin | None = None
    """The CLIP that the fit started from; None when the reward was not fitted to rankings."""

    @property
    def needed_files(self) -> list[str]:
        """Files without which the reward cannot be verified."""
        own = TOKENIZER_FILES if self.text.tokenizer == "folder" else []
        return [WEIGHTS_FILE, *(each.image for each in self.golden), *own]


Likelihood: TypeAlias = Literal["embeddings", "own head"]
"""A language head that is nothing but the embeddings, or one with weights of its own."""


class TextContract(SharedFacts):
    """Everything that a reward of texts needs beside its weights and its tokenizer."""

    kind: Literal["texts"]
    """What it scores."""

    backbone: dict[str, JsonValue]
    """Settings of the language model, as transformers writes them into config.json."""

    context_length: Annotated[int, Field(ge=2)]
    """Tokens of prompt and response together, the end token included; longer ones are refused."""

    vocabulary: Sha256
    """Fingerprint of the tokenizer: which token has which number."""

    likelihood: Likelihood | None = None
    """The language head under which the weighted log-likelihood of a response is part of its score;
    None where it is not, as in contracts of older versions."""

    golden: Annotated[tuple[GoldenText, ...], Field(min_length=1, max_length=64)]
    """Scores to reproduce at each load."""

    origin: TextOrigin | None = None
    """The language model that the fit started from."""

    @property
    def needed_files(self) -> list[str]:
        """Files without which the reward cannot be verified."""
        return [WEIGHTS_FILE, *TOKENIZER_FILES]


AnyContract: TypeAlias = Contract | TextContract


def read_contract(folder: Path) -> AnyContract:
    """Read the contract in `folder`; CheckpointError when it is missing or invalid."""
    path = folder / CONTRACT_FILE
    if not path.is_file():
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder}: no such folder, expected that of a reward model; name another, or fit "
                "one with 'imgalign reward train'"
            )
        raise CheckpointError(
            f"{folder}: no {CONTRACT_FILE} here; {describe_folder(folder)}; "
            "'imgalign reward train' writes one"
        )
    fields = read_settings(path)
    if isinstance(fields, dict) and fields.get("format", 1) != 1:
        raise CheckpointError(
            f"{path}: expected format 1, got {fields['format']!r}; "
            "it was written by a newer imgalign, upgrade to read it"
        )
    if isinstance(fields, dict) and fields.get("kind", "images") != "images":
        return validated(TextContract, fields, str(path))
    contract = validated(Contract, fields, str(path))
    if contract.quick_gelu != contract.backbone.quick_gelu:
        raise CheckpointError(
            f"{path}: quick_gelu is {contract.quick_gelu} here and "
            f"{contract.backbone.quick_gelu} in the backbone; fit it again"
        )
    return contract


def read_image_contract(folder: Path) -> Contract:
    """The contract of a reward of images; CheckpointError for one of texts too."""
    contract = read_contract(folder)
    if not isinstance(contract, Contract):
        raise CheckpointError(f"{folder}: expected a reward of images, it is one of texts")
    return contract


def read_text_contract(folder: Path) -> TextContract:
    """The contract of a reward of texts; CheckpointError for one of images too."""
    contract = read_contract(folder)
    if not isinstance(contract, TextContract):
        raise CheckpointError(f"{folder}: expected a reward of texts, it is one of images")
    return contract


def write_contract(contract: AnyContract, folder: Path) -> None:
    """Write `contract` into `folder` as indented JSON."""
    text = json.dumps(contract.model_dump(mode="json"), indent=2) + "\n"
    (folder / CONTRACT_FILE).write_text(text, encoding="utf-8")


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights, the tokenizer and the golden images in `folder`, by name."""
    places = [folder / WEIGHTS_FILE]
    for inner in (folder / TOKENIZER_FOLDER, folder / GOLDEN_FOLDER):
        places += sorted(inner.iterdir()) if inner.is_dir() else []
    return {path.relative_to(folder).as_posix(): sha256(path) for path in places}


def check_files(contract: AnyContract, folder: Path) -> None:
    """Check the files of a folder against the hashes in its contract.

    CheckpointError names the first file that is missing, has another hash, or is not listed.
    """
    if contract.files is None:
        return
    for name, expected in contract.files.items():
        path = folder / name
        if not path.is_file():
            found = "missing" if not path.exists() else "expected a file"
            raise CheckpointError(f"{path}: {found}; copy the whole folder again")
        if sha256(path) != expected:
            raise CheckpointError(
                f"{path}: its content is not what was saved (SHA-256 differs); copy it again"
            )
    for name in contract.needed_files:
        if name not in contract.files:
            raise CheckpointError(
                f"{folder / CONTRACT_FILE}: files: lists no {name}, so it cannot be verified"
            )


def check_golden(contract: AnyContract, scores: Sequence[float], *, folder: Path) -> None:
    """Check recomputed golden scores against those in the contract.

    CheckpointError names both numbers of the worst sample, and each library whose version changed.
    """
    known: Sequence[Golden | GoldenText] = contract.golden
    drifts = [abs(new - old.score) for new, old in zip(scores, known, strict=True)]
    within = [drift <= GOLDEN_TOLERANCE for drift in drifts]  # a NaN is never within
    if all(within):
        return
    worst = max(range(len(drifts)), key=lambda i: (not within[i], drifts[i]))
    golden = known[worst]
    now = library_versions()
    changed = [
        f"{name} {then} -> {now.get(name, 'absent')}"
        for name, then in contract.libraries.items()
        if now.get(name) != then
    ]
    raise CheckpointError(
        f"{folder}: {within.count(False)} of {len(drifts)} golden scores drifted, {golden.name} "
        f"scored {golden.score:.4f} when fitted and {scores[worst]:.4f} now (tolerance "
        f"{GOLDEN_TOLERANCE:g}); changed since: {', '.join(changed) or 'no library, so the files'}"
        "; fit it again or restore what changed"
    )


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a score."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def data_hash(lines: Iterable[str]) -> str:
    """Hash of a data set that does not depend on the order of its lines."""
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
