"""Theme of the app: colours, sizes, and fonts that are already installed.

No web font is requested, so that the app is the same on a machine without a network.
"""

from importlib.resources import files

import gradio as gr
from gradio.themes.utils import colors

PAPER = colors.Color(
    name="paper",
    c50="#fdfbf7",
    c100="#f8f4ec",
    c200="#ece5d8",
    c300="#dcd2c1",
    c400="#b3a794",
    c500="#857a6a",
    c600="#665d50",
    c700="#4b443b",
    c800="#312c27",
    c900="#242019",
    c950="#1a1713",
)
TERRACOTTA = colors.Color(
    name="terracotta",
    c50="#fdf3ef",
    c100="#fae3da",
    c200="#f4c6b5",
    c300="#eba289",
    c400="#dd7a5b",
    c500="#c75d3c",
    c600="#b04a2b",
    c700="#8f3b23",
    c800="#6f3020",
    c900="#53261b",
    c950="#32150e",
)

SANS = (
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Noto Sans",
    "Liberation Sans",
    "sans-serif",
)
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")


WORDS = {
    "input_placeholder_color": "*neutral_600",
    "input_placeholder_color_dark": "*neutral_400",
    "link_text_color": "*primary_700",
    "link_text_color_dark": "*primary_300",
    "link_text_color_hover": "*primary_800",
    "link_text_color_hover_dark": "*primary_200",
    "link_text_color_visited": "*primary_700",
    "link_text_color_visited_dark": "*primary_300",
}
"""Examples in empty fields, and links within sentences."""


def theme() -> gr.themes.Base:
    """The theme shared by all pages, light and dark."""
    base = gr.themes.Base(
        primary_hue=TERRACOTTA, secondary_hue=PAPER, neutral_hue=PAPER, font=SANS, font_mono=MONO
    )
    return base.set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="*neutral_50",
        background_fill_primary_dark="*neutral_900",
        **WORDS,
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_background_fill="*neutral_50",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_width_dark="1px",
        block_radius="14px",
        block_shadow="0 1px 2px rgb(60 40 20 / 0.04)",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_border_width_dark="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_300",
        block_title_text_weight="600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_500",
        input_radius="10px",
        input_shadow="none",
        input_shadow_focus="0 0 0 3px rgb(199 93 60 / 0.18)",
        input_shadow_focus_dark="0 0 0 3px rgb(221 122 91 / 0.25)",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_large_radius="12px",
        button_medium_radius="10px",
        button_small_radius="8px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_secondary_text_color="*neutral_800",
        button_secondary_text_color_dark="*neutral_100",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="*primary_950",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
        table_even_background_fill="transparent",
        table_even_background_fill_dark="transparent",
        table_odd_background_fill="transparent",
        table_odd_background_fill_dark="transparent",
    )


SHARING = (
    *("batches.js", "compare.js", "controls.js", "learn.js", "loras.js", "monitor.js"),
    *("ranker.js", "taking.js"),
)
"""Scripts that begin with what they share, dom.js; a component's script is one text."""
CHOOSING = ("batches.js", "learn.js", "monitor.js")
"""Those of them in which one of a row is chosen, by listbox.js."""
LOOKING = ("large.js", "ranker.js")
"""Scripts in which images are looked at closely, by pixels.js."""
ORDERED = ("monitor.js", "people.js")
"""Those of pages whose parts change places on a narrow screen, by order.js."""
TAKING = ("monitor.js",)
"""Scripts in which files are taken home that the app writes, by taking.js."""
SENDING = ("loras.js", "rankings.js", "upload.js")
"""Scripts in which files of this computer are sent, by files.js."""


def asset(name: str) -> str:
    """The text of a file that ships beside this module, e.g. "ranker.js"."""
    names = (
        *(("dom.js",) if name in SHARING else ()),
        *(("listbox.js",) if name in CHOOSING else ()),
        *(("pixels.js",) if name in LOOKING else ()),
        *(("order.js",) if name in ORDERED else ()),
        *(("taking.js",) if name in TAKING else ()),
        *(("files.js",) if name in SENDING else ()),
        name,
    )
    folder = files("ui") / "assets"
    return "".join((folder / each).read_text(encoding="utf-8") for each in names)
