"""What differs between families of text-to-image models, and nothing else.

A family knows how its pipeline turns prompts into conditions, what its network predicts, how
latents become images, and how its users exchange LoRA weights. Samplers, policies and `generate`
use it through these few methods; to support another family, write its class here and name it in
`FAMILIES`. Left out: noise schedules (kernels.py), sampling (denoising.py), training.

Shapes: b = prompts, n = rows of one forward pass, l = tokens, d = features.
"""

import json
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from jaxtyping import Float, Num
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from imgalign.diffusion.adapters import LORA_FILE, fit, read_lora
from imgalign.diffusion.kernels import DDIMKernel, ddim_kernel
from imgalign.diffusion.model_folder import load_folder
from imgalign.diffusion.schedulers import MODEL, SCHEDULERS, build_scheduler, check_levels, name_of
from imgalign.diffusion.single_file import load_file
from imgalign.environment import computing_in
from imgalign.errors import CheckpointError, InputError

log = logging.getLogger(__name__)

# The library gives this no types.
_to_diffusers: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = convert_state_dict_to_diffusers

ENCODED_PROMPTS = 1024
"""How many prompts' embeddings are kept; Stable Diffusion's take 0.2 MB each."""


class StableDiffusion:
    """Stable Diffusion 1 and 2: one CLIP text encoder, a UNet, a variational autoencoder."""

    pipeline_class = StableDiffusionPipeline
    network_name = "unet"
    loading: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    """Passed on when a pipeline is fetched: what is not used is left where it is."""

    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    """The projections of every attention layer, as in diffusers' own training scripts."""

    load = staticmethod(load_folder)
    """Read a folder of this family."""

    load_file = staticmethod(load_file)
    """Read a checkpoint of one file."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        self.pipeline = pipeline
        self.network: UNet2DConditionModel = pipeline.unet
        self.dtype: torch.dtype = pipeline.unet.dtype
        """What the network computes in; an adapter's float32 weights do not change it."""
        # Trained weights are pretrained weights plus an adapter; what is not the adapter stays.
        for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            module.requires_grad_(False)
            module.eval()
        self._encoded: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @property
    def adaptable(self) -> dict[str, nn.Module]:
        """What a LoRA file may hold layers of, by the name that the layouts give it."""
        return {"unet": self.network, "text_encoder": self.pipeline.text_encoder}

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.network.device
        return device

    def kernel(self, num_inference_steps: int, *, eta: float) -> DDIMKernel:
        """The steps of a DDIM sampler with the noise levels this model was trained on."""
        own = name_of(self.pipeline.scheduler)
        check_levels(self.pipeline.scheduler.config)
        if own != "ddim":
            _say_once(f"the model comes with the scheduler {own}; images are sampled with ddim")
        if self.pipeline.scheduler.config.get("thresholding"):
            _say_once(
                "the model's scheduler_config.json has thresholding on, which is for images and not"
                " for latents; images are sampled without it"
            )
        # Latents have no bounds, so the pipeline ignores the clipping that is DDIM's default.
        scheduler = DDIMScheduler.from_config(
            self.pipeline.scheduler.config, clip_sample=False, thresholding=False
        )
        return ddim_kernel(scheduler, num_inference_steps, eta=eta, device=self.device)

    def scheduler_name(self, wanted: str) -> str:
        """The name in SCHEDULERS of what is wanted: such a name, or "model" for the model's own."""
        if wanted == MODEL:
            return name_of(self.pipeline.scheduler)
        if wanted not in SCHEDULERS:
            raise InputError(
                f"scheduler: expected {MODEL} or one of {', '.join(SCHEDULERS)}, got {wanted!r}"
            )
        return wanted

    def scheduler(self, name: str) -> Any:
        """A scheduler of the library with this model's noise levels, by its name in SCHEDULERS."""
        return build_scheduler(SCHEDULERS[name], self.pipeline.scheduler.config)

    def image_size(self) -> tuple[int, int]:
        """Width and height that the model was trained on, in pixels."""
        size, scale = self.network.config["sample_size"], self.pipeline.vae_scale_factor
        height, width = (size, size) if isinstance(size, int) else size
        return width * scale, height * scale

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Channels, height and width of the latent of an image of this size in pixels."""
        # Each level of the UNet but the last halves the latent.
        unit = self.pipeline.vae_scale_factor * 2 ** (
            len(self.network.config["block_out_channels"]) - 1
        )
        for name, pixels in (("width", width), ("height", height)):
            if pixels < unit or pixels % unit:
                raise InputError(f"{name}: expected a multiple of {unit} pixels, got {pixels}")
        scale = self.pipeline.vae_scale_factor
        return self.network.config["in_channels"], height // scale, width // scale

    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Embeddings of every token; each prompt is encoded by itself, once.

        Warns when a prompt is longer than the model reads, and says what it does not see.
        """
        return torch.cat([self._encode(prompt)[0] for prompt in prompts])

    def pooled(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        """One vector per prompt: the embedding of its end token, which has seen all before it."""
        return torch.cat([self._encode(prompt)[1] for prompt in prompts])

    def cut_text(self, prompt: str) -> str:
        """The end of the prompt that does not fit into the model's context; mostly empty."""
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
        cut: str = tokenizer.decode(ids[tokenizer.model_max_length - 1 : -1])
        return cut.strip()

    @torch.no_grad()
    def _encode(self, prompt: str) -> tuple[Float[Tensor, "1 l d"], Float[Tensor, "1 d"]]:
        if prompt in self._encoded:
            self._encoded.move_to_end(prompt)
            return self._encoded[prompt]
        tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        text = self.pipeline.maybe_convert_prompt(prompt, tokenizer)  # textual inversion
        if cut := self.cut_text(text):
            limit = tokenizer.model_max_length
            warnings.warn(
                f"prompt: the model reads {limit} tokens and does not see the end here: {cut!r}",
                stacklevel=2,
            )
        tokens = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt")
        attention_mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            attention_mask = tokens.attention_mask.to(encoder.device)
        states = encoder(tokens.input_ids.to(encoder.device), attention_mask=attention_mask)[0]
        end = int((tokens.input_ids[0] == tokenizer.eos_token_id).int().argmax())
        self._encoded[prompt] = states, states[:, end]
        if len(self._encoded) > ENCODED_PROMPTS:
            self._encoded.popitem(last=False)
        return self._encoded[prompt]

    def predict(
        self,
        latents: Float[Tensor, "n c h w"],
        timesteps: Num[Tensor, " n"],
        embeddings: Float[Tensor, "n l d"],
        *,
        negative: Float[Tensor, "n l d"] | None = None,
        guidance_scale: float = 1.0,
    ) -> Float[Tensor, "n c h w"]:
        """What the network says about each row, in float32, with guidance where it is not 1.

        Both halves of classifier-free guidance (arXiv:2207.12598) go through in one pass. A network
        that is told its guidance (arXiv:2310.04378) gives in one what others give with two.
        """
        told_size = self.network.config["time_cond_proj_dim"]
        told = None
        if told_size is not None:
            negative = None
            scales = torch.full((len(latents),), guidance_scale - 1)
            told = self.pipeline.get_guidance_scale_embedding(scales, embedding_dim=told_size)
            told = told.to(latents.device, self.dtype)
        if negative is not None:
            latents, timesteps = latents.repeat(2, 1, 1, 1), timesteps.repeat(2)
            embeddings = torch.cat([negative, embeddings])
        dtype = self.dtype
        with computing_in(dtype, latents.device):
            output: Tensor = self.network(
                latents.to(dtype),
                timesteps,
                encoder_hidden_states=embeddings.to(dtype),
                timestep_cond=told,
            ).sample
        output = output.float()
        if negative is None:
            return output
        without, with_prompt = output.chunk(2)
        return without + guidance_scale * (with_prompt - without)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """Images in [0, 1], float32."""
        vae = self.pipeline.vae
        images: Tensor = vae.decode((latents / vae.config["scaling_factor"]).to(vae.dtype)).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c h w"]:
        """Latents of images in [0, 1], float32: the mean of the autoencoder, scaled.

        InputError for a size of which no latent can be sampled.
        """
        vae = self.pipeline.vae
        self.latent_shape(width=images.shape[3], height=images.shape[2])
        encoded = vae.encode((images * 2 - 1).to(vae.device, vae.dtype))
        latents: Tensor = encoded.latent_dist.mode().float() * vae.config["scaling_factor"]
        return latents

    def save_lora(self, folder: Path, adapter: str) -> None:
        """Write an adapter of the network such that `pipe.load_lora_weights(folder)` reads it.

        Equal weights give equal bytes.
        """
        layers = get_peft_model_state_dict(self.network, adapter_name=adapter)
        layers = {name: layer.float().cpu().contiguous() for name, layer in layers.items()}
        metadata: dict[str, Any] = self.network.peft_config[adapter].to_dict()
        metadata["target_modules"] = sorted(metadata["target_modules"])  # a set: order is random
        converted = _to_diffusers(layers)
        self.pipeline.save_lora_weights(
            folder,
            # Only attention is converted there, and the loader refuses a mixture.
            unet_lora_layers={
                name.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): layer
                for name, layer in converted.items()
            },
            save_function=partial(_save_reproducibly, facts=metadata),
        )

    def load_lora(self, folder: Path, adapter: str) -> None:
        """Copy what `save_lora` wrote into an adapter that exists; CheckpointError if unlike it."""
        layers = fit(read_lora(folder / LORA_FILE), {"unet": self.network})
        matrices = {name: each for layer in layers for name, each in layer.matrices().items()}
        ours = get_peft_model_state_dict(self.network, adapter_name=adapter)
        shapes, expected = _shapes(matrices), _shapes(ours)
        for name in sorted(shapes.keys() | expected.keys()):
            if shapes.get(name) != expected.get(name):
                raise CheckpointError(
                    f"{folder}: the adapter does not fit the policy's lora settings: {name}"
                    f" expected {expected.get(name, 'nothing')}, got {shapes.get(name, 'nothing')}"
                )
        wanted = self.network.peft_config[adapter].lora_alpha
        for layer in layers:
            if layer.alpha != wanted:
                raise CheckpointError(
                    f"{folder}: expected an adapter with lora_alpha {wanted:g},"
                    f" got {layer.alpha:g}; set lora_alpha to that"
                )
        set_peft_model_state_dict(self.network, matrices, adapter_name=adapter)


@cache
def _say_once(fact: str) -> None:
    log.warning("%s", fact)


def _save_reproducibly(layers: dict[str, Tensor], path: str, *, facts: dict[str, Any]) -> None:
    # The library adds a second key, {"format": "pt"}, and safetensors writes keys in random order.
    text = json.dumps({f"unet.{key}": value for key, value in facts.items()}, sort_keys=True)
    save_file(layers, path, metadata={LORA_ADAPTER_METADATA_KEY: text})


def _shapes(layers: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(layer.shape) for name, layer in layers.items()}


FAMILIES = {"StableDiffusionPipeline": StableDiffusion}
"""By the pipeline class that a model's model_index.json names."""

Pipeline: TypeAlias = StableDiffusionPipeline
Family: TypeAlias = StableDiffusion


def family_of(pipeline: DiffusionPipeline) -> Family:
    """What this pipeline can do; InputError for a kind of model that is not supported."""
    for family in FAMILIES.values():
        if isinstance(pipeline, family.pipeline_class):
            return family(pipeline)
    name = type(pipeline).__name__
    raise InputError(f"model: expected one of {', '.join(FAMILIES)}, got {name}")
