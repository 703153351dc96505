"""What all families of text-to-image models share; a family is a subclass of `Family`.

A family turns prompts into conditions, runs its network on rows of latents, and turns latents into
images and back. Guidance, the cache of conditions, freezing, the network's dtype and LoRA files
are here, once. Left out: noise schedules (kernels.py), sampling (denoising.py, samplers.py),
training.

Shapes: b = prompts or images, n = rows of one forward pass, d = features; a latent is c h w.
"""

import json
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from jaxtyping import Float, Num
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from imgalign.diffusion.adapters import LORA_FILE, Component, Layer, read_layers
from imgalign.diffusion.kernels import Kernel
from imgalign.diffusion.model_folder import UNUSABLE
from imgalign.environment import computing_in
from imgalign.errors import CheckpointError, InputError, first_line
from imgalign.runs.weights import hash_of

Conditions: TypeAlias = Mapping[str, Tensor]
"""What the network is told about each prompt, by the library's names for it: `prompt_embeds`,
`pooled_prompt_embeds`, ... The first dimension of every tensor is that of the prompts."""

# The library gives this no types.
_to_diffusers: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = convert_state_dict_to_diffusers

DECODING = ("decoder.", "post_quant_conv.")
"""Weights of an autoencoder that make no latents."""
ENCODED_PROMPTS = 1024
"""How many prompts' conditions are kept; Stable Diffusion's take 0.2 MB each."""


class Family(ABC):
    """A pipeline with what differs between families.

    The pipeline belongs to it from then on: all parts are frozen and in evaluation mode. `dtype` is
    what the network computes in, by default what its weights are in.
    """

    pipeline_class: ClassVar[type[DiffusionPipeline]]
    network_name: ClassVar[str]
    """Of the denoising network among the parts of the pipeline."""

    classes: ClassVar[Mapping[str, tuple[str, ...]]]
    """The parts that are needed of a folder, with the classes that each may have."""

    adaptable_parts: ClassVar[Mapping[str, str]]
    """The parts that a LoRA file may hold layers of, with what the names of these layers begin with
    in kohya's layout."""

    target_modules: ClassVar[tuple[str, ...]]
    """Ends of the names of the layers that are trained unless a config names others."""

    loading: ClassVar[Mapping[str, Any]] = {}
    """Passed on when a pipeline is fetched and built: what is not used is left where it is."""

    kernel_scheduler: ClassVar[str]
    """The scheduler whose steps `kernel` takes, by the name that `scheduler_name` gives it."""

    file_parts: ClassVar[Mapping[str, str]] = {}
    """What tensors of a checkpoint of one file begin with, and the part that these are; nothing
    where `load_file` reads none."""

    embeds_guidance: bool = False
    """Whether the network is told its guidance scale and needs no second pass for it
    (arXiv:2310.04378)."""

    def __init__(self, pipeline: DiffusionPipeline, *, dtype: torch.dtype | None = None) -> None:
        self.pipeline = pipeline
        self.parts: dict[str, nn.Module] = {
            name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)
        }
        """All networks of the pipeline, by its names for them."""
        self.network: Any = pipeline.components[self.network_name]
        """A model of diffusers that takes adapters; the library has no type for that."""
        self.dtype: torch.dtype = dtype or self.network.dtype
        """What the network computes in, whatever its weights are kept in."""
        for part in self.parts.values():
            part.requires_grad_(False)
            part.eval()
        self._encoded: OrderedDict[str, Conditions] = OrderedDict()

    @staticmethod
    @abstractmethod
    def load_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
        """The parts of a folder that has all of `classes`, the network in `dtype`, others float32.

        InputError, in one line, where one cannot be used.
        """

    @staticmethod
    @abstractmethod
    def plan_parts(folder: Path) -> dict[str, Any]:
        """The same, but for the weights: networks are on the device "meta" and cannot be asked."""

    @staticmethod
    def load_file(path: Path, dtype: torch.dtype) -> DiffusionPipeline:
        """The pipeline of a checkpoint of one file that has all of `file_parts`.

        InputError, in one line, where it cannot be used.
        """
        raise _no_folder(path)

    @staticmethod
    def file_settings(path: Path) -> AbstractContextManager[Path]:
        """A folder for `plan_parts`, inside of the context, of what such a file says of its parts.

        InputError likewise.
        """
        raise _no_folder(path)

    @abstractmethod
    def check_parts(self, source: Path) -> None:
        """Raise InputError, which names the source, unless parts take what the others give."""

    @abstractmethod
    def kernel(self, num_inference_steps: int, *, eta: float) -> Kernel:
        """The steps of the sampler of training, with the noise levels of this model.

        `eta` is the noise of its steps; 0 makes them deterministic. InputError for a model whose
        steps would not be Gaussians around the network's prediction.
        """

    @abstractmethod
    def scheduler_name(self, wanted: str) -> str:
        """The name of a scheduler that images can be sampled with; "model" is the model's own."""

    @abstractmethod
    def scheduler(self, name: str) -> Any:
        """A scheduler of the library with this model's noise levels, by that name."""

    @abstractmethod
    def scheduler_of_kernel(self) -> Any:
        """A scheduler of the library that takes the steps of the deterministic `kernel`."""

    @property
    @abstractmethod
    def pixel_unit(self) -> int:
        """Widths and heights of images are multiples of this many pixels."""

    def encoder_hash(self) -> str:
        """SHA-256 of all that makes latents of images: weights by name, and what scales them."""
        weights = {
            name: weight
            for name, weight in self.parts["vae"].state_dict().items()
            if not name.startswith(DECODING)
        }
        scale = torch.tensor(self.pipeline.vae.config["scaling_factor"], dtype=torch.float64)
        return hash_of([*weights.items(), ("scaling_factor", scale)])

    @abstractmethod
    def encode_prompt(self, prompt: str) -> Conditions:
        """What the network is told about one prompt; warns with the text that does not fit in."""

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Tokens of a prompt that the model reads, begin and end included."""

    @abstractmethod
    def num_tokens(self, prompt: str) -> int:
        """Tokens of the whole prompt, begin and end included."""

    @abstractmethod
    def cut_text(self, prompt: str) -> str:
        """The end of the prompt that does not fit into the model's context; mostly empty."""

    @abstractmethod
    def forward(
        self,
        latents: Float[Tensor, "n c h w"],
        timesteps: Num[Tensor, " n"],
        conditions: Conditions,
        *,
        guidance_scale: float,
    ) -> Float[Tensor, "n c h w"]:
        """What the network says about each row; tensors are in its own dtype.

        Only a network that embeds its guidance reads `guidance_scale`.
        """

    @abstractmethod
    def kohya_facts(self) -> dict[str, str]:
        """What the header of a LoRA file in kohya's layout says of this kind of model.

        `ss_base_model_version`, `ss_v2`, `modelspec.architecture` and `modelspec.prediction_type`,
        as kohya's scripts write them.
        """

    @property
    def adaptable(self) -> list[Component]:
        """What a LoRA file may hold layers of."""
        return [
            Component(name=name, network=self.parts[name], kohya_prefix=prefix)
            for name, prefix in self.adaptable_parts.items()
        ]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    def image_size(self) -> tuple[int, int]:
        """Width and height that the model was trained on, in pixels."""
        size, scale = self.network.config["sample_size"], self.pipeline.vae_scale_factor
        height, width = (size, size) if isinstance(size, int) else size
        return width * scale, height * scale

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of this size in pixels."""
        unit, scale = self.pixel_unit, self.pipeline.vae_scale_factor
        for name, pixels in (("width", width), ("height", height)):
            if pixels < unit or pixels % unit:
                raise InputError(f"{name}: expected a multiple of {unit} pixels, got {pixels}")
        return self.network.config["in_channels"], height // scale, width // scale

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Conditions of b prompts; each prompt is encoded by itself, once.

        Warns when a prompt is longer than the model reads, and says what it does not see.
        """
        encoded = [self._encode(prompt) for prompt in prompts]
        return {name: torch.cat([each[name] for each in encoded]) for name in encoded[0]}

    def pooled(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        """One vector per prompt: the text encoder's summary of it."""
        return self.encode(prompts)["pooled_prompt_embeds"]

    @torch.no_grad()
    def _encode(self, prompt: str) -> Conditions:
        if prompt in self._encoded:
            self._encoded.move_to_end(prompt)
            return self._encoded[prompt]
        self._encoded[prompt] = self.encode_prompt(prompt)
        if len(self._encoded) > ENCODED_PROMPTS:
            self._encoded.popitem(last=False)
        return self._encoded[prompt]

    def predict(
        self,
        latents: Float[Tensor, "n c h w"],
        timesteps: Num[Tensor, " n"],
        conditions: Conditions,
        *,
        negative: Conditions | None = None,
        guidance_scale: float = 1.0,
    ) -> Float[Tensor, "n c h w"]:
        """What the network says about each row, in float32, with guidance where it is not 1.

        `conditions` are of n rows; `negative`, of one row, is what guidance leads away from. Both
        halves of classifier-free guidance (arXiv:2207.12598) go through in one pass.
        """
        if self.embeds_guidance:
            negative = None
        if negative is not None:
            latents, timesteps = latents.repeat(2, 1, 1, 1), timesteps.repeat(2)
            conditions = {
                name: torch.cat([negative[name].expand_as(rows), rows])
                for name, rows in conditions.items()
            }
        with computing_in(self.dtype, latents.device):
            output = self.forward(
                latents.to(self.dtype),
                timesteps,
                {name: rows.to(self.dtype) for name, rows in conditions.items()},
                guidance_scale=guidance_scale,
            ).float()
        if negative is None:
            return output
        without, with_prompt = output.chunk(2)
        return without + guidance_scale * (with_prompt - without)

    def keep_fewer_activations(self) -> None:
        """Compute most activations again when gradients are taken, and as they were computed first.

        That happens outside `predict`, so its context is entered once more.
        """

        def kept(module: nn.Module, *given: Any) -> Any:
            return checkpoint(
                module,
                *given,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), computing_in(self.dtype, self.device)),
            )

        self.network.enable_gradient_checkpointing(kept)

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """Images in [0, 1], float32; differentiable in the latents."""
        return (self._pixels(latents).float() / 2 + 0.5).clamp(0, 1)

    def _pixels(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        vae = self.pipeline.vae
        images: Tensor = vae.decode((latents / vae.config["scaling_factor"]).to(vae.dtype)).sample
        return images

    def encode_images(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c h w"]:
        """Latents of images in [0, 1], float32: the mean of the autoencoder, scaled.

        Differentiable in the images. InputError for a size that no latent has.
        """
        vae = self.pipeline.vae
        self.latent_shape(width=images.shape[3], height=images.shape[2])
        encoded = vae.encode((images * 2 - 1).to(vae.device, vae.dtype))
        latents: Tensor = encoded.latent_dist.mode().float() * vae.config["scaling_factor"]
        return latents

    @torch.no_grad()
    def try_out(self, source: Path) -> None:
        """Ask every part once, for the smallest image: some settings and weights show only then.

        InputError, which names the source, where a part cannot answer, or answers with numbers that
        are not finite.
        """
        shape = 1, *self.latent_shape(self.pixel_unit, self.pixel_unit)
        latent = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(0))
        part = "text_encoder"
        try:
            conditions = self.encode_prompt("")
            _check_answer(conditions.values(), source, part)
            part = self.network_name
            conditions = {name: rows.to(self.dtype) for name, rows in conditions.items()}
            rows, timesteps = latent.to(self.dtype), torch.ones(1, dtype=torch.long)
            answer = self.forward(rows, timesteps, conditions, guidance_scale=1.0)
            _check_answer([answer], source, part)
            part = "vae"
            _check_answer([self._pixels(latent)], source, part)
        except UNUSABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"model: {source}: its {part} fails: {first_line(error)}") from None

    def save_lora(self, folder: Path, adapter: str) -> None:
        """Write an adapter of the network such that `pipe.load_lora_weights(folder)` reads it.

        Equal weights give equal bytes.
        """
        layers = get_peft_model_state_dict(self.network, adapter_name=adapter)
        layers = {name: layer.float().cpu().contiguous() for name, layer in layers.items()}
        settings: dict[str, Any] = self.network.peft_config[adapter].to_dict()
        settings["target_modules"] = sorted(settings["target_modules"])  # a set: order is random
        metadata = {f"{self.network_name}.{key}": value for key, value in settings.items()}
        converted = {
            # Only attention is converted there, and the loader refuses a mixture.
            name.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): layer
            for name, layer in _to_diffusers(layers).items()
        }
        self.pipeline.save_lora_weights(
            folder,
            **{f"{self.network_name}_lora_layers": converted},
            save_function=partial(_save_reproducibly, metadata=metadata),
        )

    def load_lora(self, folder: Path, adapter: str) -> None:
        """Copy what `save_lora` wrote into an adapter that exists; CheckpointError if unlike it."""
        own = [each for each in self.adaptable if each.name == self.network_name]
        layers = read_layers(folder / LORA_FILE, own)
        matrices = {name: each for layer in layers for name, each in layer.matrices().items()}
        ours = get_peft_model_state_dict(self.network, adapter_name=adapter)
        shapes, expected = _shapes(matrices), _shapes(ours)
        for name in sorted(shapes.keys() | expected.keys()):
            if shapes.get(name) != expected.get(name):
                raise CheckpointError(
                    f"{folder}: the adapter does not fit the policy's lora settings: {name}"
                    f" expected {expected.get(name, 'nothing')}, got {shapes.get(name, 'nothing')}"
                )
        for layer in layers:
            wanted = self.network.get_submodule(layer.name).lora_alpha[adapter]
            if layer.alpha != wanted:
                raise CheckpointError(
                    f"{folder}: expected an adapter with lora_alpha {wanted:g},"
                    f" got {layer.alpha:g}; set lora_alpha to that"
                )
        self.set_lora(layers, adapter)

    def set_lora(self, layers: Sequence[Layer], adapter: str) -> None:
        """Copy the matrices of the network's layers into an adapter that has the same ones."""
        matrices = {name: each for layer in layers for name, each in layer.matrices().items()}
        set_peft_model_state_dict(self.network, matrices, adapter_name=adapter)


def _no_folder(path: Path) -> InputError:
    return InputError(
        f"{path}: expected a folder in diffusers' layout; models of this kind come in no other form"
    )


def _check_answer(answer: Iterable[Tensor], source: Path, part: str) -> None:
    for tensor in answer:
        if not tensor.isfinite().all():
            raise InputError(
                f"model: {source}: its {part} gave numbers that are not finite (in"
                f" {str(tensor.dtype).removeprefix('torch.')}): its weights are damaged, or need"
                " bfloat16 or float32"
            )


def _save_reproducibly(layers: dict[str, Tensor], path: str, *, metadata: dict[str, Any]) -> None:
    # The library adds a second key, {"format": "pt"}, and safetensors writes keys in random order.
    text = json.dumps(metadata, sort_keys=True)
    save_file(layers, path, metadata={LORA_ADAPTER_METADATA_KEY: text})


def _shapes(layers: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(layer.shape) for name, layer in layers.items()}
