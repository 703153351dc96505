"""Draw a sheet of storybook images; the argument is the PNG file to write."""

import argparse
from pathlib import Path

from PIL import Image

from imgalign.storybook.drawing import draw_prompt
from imgalign.storybook.scenes import COLOURS, OBJECTS, SETTINGS, evaluation_prompts

COLUMNS, ROWS, SIDE = 8, 4, 128


def main() -> None:
    """Every object once, each in another colour and setting, then mixed prompts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    phrases = tuple(SETTINGS.values())
    single = [
        f"{'an' if COLOURS[i % 8][0] == 'o' else 'a'} {COLOURS[i % 8]} {kind} {phrases[i * 5 % 6]}"
        for i, kind in enumerate(OBJECTS)
    ]
    mixed = [
        p for p in evaluation_prompts(60, seed=3) if "three" in p or " on " in p or "above" in p
    ]
    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for index, prompt in enumerate((*single, *mixed)[: COLUMNS * ROWS]):
        image = draw_prompt(prompt, seed=index, size=SIDE)
        sheet.paste(image, (index % COLUMNS * SIDE, index // COLUMNS * SIDE))
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main()
