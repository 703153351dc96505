"""Which family a pipeline belongs to. To support another, write its module and name it here."""

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.families.sd import StableDiffusion
from imgalign.errors import InputError

FAMILIES: dict[str, type[Family]] = {"StableDiffusionPipeline": StableDiffusion}
"""By the pipeline class that a model's model_index.json names."""


def family_of(pipeline: DiffusionPipeline) -> Family:
    """The pipeline as a member of its family; InputError if its kind is not supported."""
    for family in FAMILIES.values():
        if isinstance(pipeline, family.pipeline_class):
            return family(pipeline)
    name = type(pipeline).__name__
    raise InputError(f"model: expected one of {', '.join(FAMILIES)}, got {name}")
