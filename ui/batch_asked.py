"""What a batch of candidates is made of, as it is kept beside it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from imgalign.preferences.wording import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a batch is made of. Example: 12 prompts, 4 images of each by the storybook's model."""

    source: Literal["prompts", "images", "texts"]
    project: str
    per_prompt: int
    overlap: int = 1
    prompts: tuple[str, ...] = ()
    model: str = ""
    """Model that makes the images; empty with an adapter, whose run names its own."""
    adapter: str = ""
    """Folder of a checkpoint; empty for the model alone."""
    maker: str = ""
    """Either, as the page calls it."""
    first_seed: int = 0
    steps: int = 20
    guidance: float = 1.0
    place: str = ""
    """Folder of the images, or file of the texts, that were made elsewhere."""
    uploaded: bool = False
    """Whether the folder is one of the app, of images that a browser sent."""

    @property
    def num_images(self) -> int:
        """Images to be made; 0 for what was made elsewhere."""
        return len(self.prompts) * self.per_prompt

    @property
    def title(self) -> str:
        """Example: "12 prompts, 48 images by storybook"."""
        if self.uploaded:
            return "Images from a browser"
        if self.source != "prompts":
            return f"{self.source.capitalize()} from {Path(self.place).name}"
        images = counted(self.num_images, "image")
        return f"{counted(len(self.prompts), 'prompt')}, {images} by {self.maker}"


ASKED = TypeAdapter(Asked)
