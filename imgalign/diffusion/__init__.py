"""Diffusion models: kernels, sampling, policies, families, loading."""

from imgalign.diffusion.attention import hide_broken_xformers

# Before anything here imports diffusers, which imports xformers where it is installed.
hide_broken_xformers()
