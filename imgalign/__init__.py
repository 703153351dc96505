"""imgalign: the human-feedback studio for text-to-image diffusion models.

Importing this package loads neither torch nor gradio; import the module you need.
"""

__version__ = "0.2.0"
