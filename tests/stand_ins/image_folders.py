"""Small image files with captions and metadata, for tests of folders of images."""

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def image(shade: int) -> Image.Image:
    """Another shade is another image."""
    return Image.new("RGB", (8, 8), (shade % 256, shade // 256, 0))


def put(path: Path, shade: int, *, caption: str | None = None, **texts: str) -> Path:
    """Write an image in the format of its name, PNG with text chunks, and a caption beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        info = PngInfo()
        for keyword, text in texts.items():
            info.add_text(keyword, text)
        image(shade).save(path, pnginfo=info)
    else:
        image(shade).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def pair_folder(folder: Path, *, pairs: int = 3) -> Path:
    """Pairs in chosen/ and rejected/, the prompts "prompt 0", "prompt 1", ..."""
    for number in range(pairs):
        put(folder / "chosen" / f"{number}.png", 40 * number, caption=f"prompt {number}")
        put(folder / "rejected" / f"{number}.png", 40 * number + 20)
    return folder
