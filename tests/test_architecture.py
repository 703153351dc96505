"""Who may import whom, and what is done in one place: the layers of the design.

    5  imgalign.{cli, demo, loop, __main__}                  ui.app -> .pages -> .api -> the rest
    4  imgalign.{train, evaluate, report}                    reward_models, .fit, .server
    3  imgalign.{algorithms, feedback}
    2  imgalign.{diffusion, language, storybook}             reward_models.*
    1  imgalign.{policy, prompts, images, runs, preferences} reward_models.{architecture, contract}
    0  imgalign, .{losses, advantages, statistics, config, explain, unions, environment, errors,
       files}

A module imports its own layer and those below. Each test lists all that offend it.
"""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest
from source_tree import (
    ROOT,
    SOURCES,
    assert_none,
    calls,
    imports,
    inside,
    modules_of,
    ours,
    tree,
)

from imgalign.config import Config

ROOTS = (
    "imgalign.__main__",
    "imgalign.cli",
    "imgalign.demo",
    "imgalign.loop",
)
LAYERS = {
    **dict.fromkeys(["losses", "advantages", "statistics", "config", "environment"], 0),
    **dict.fromkeys(["errors", "explain", "files", "unions"], 0),
    **dict.fromkeys(["policy", "prompts", "images", "runs", "preferences"], 1),
    **dict.fromkeys(["diffusion", "language", "storybook"], 2),
    **dict.fromkeys(["algorithms", "feedback"], 3),
    **dict.fromkeys(["train", "evaluate", "report"], 4),
    **dict.fromkeys(["__main__", "cli", "demo", "loop"], 5),
}
ONLY_IN = {
    "gradio": ("ui",),
    "diffusers": ("imgalign.diffusion", "imgalign.storybook"),
    "accelerate": ("imgalign.runs.world", "imgalign.train.trackers"),
    "httpx": ("imgalign.feedback.endpoint",),
    "sqlalchemy": ("imgalign.preferences",),
    "alembic": ("imgalign.preferences",),
    "typer": ("imgalign.cli",),
    "pyarrow": ("imgalign.preferences.foreign.parquet",),
    "pickle": (),
    "cloudpickle": (),
    "dill": (),
    "joblib": (),
    "shelve": (),
}
UI_MAY_IMPORT = (
    "imgalign.preferences",
    "imgalign.diffusion.generate",
    "imgalign.language.rewriting",
    "imgalign.language.locking",
    "imgalign.runs",
    "imgalign.config",
    "imgalign.errors",
    "imgalign.files",
    "imgalign.images",
    "imgalign.prompts",
    "imgalign.train.config",
    # Settings of a fit, and whether its rankings can be split: what is refused before it starts.
    "reward_models.outcome",
    "reward_models.text_training",
    "reward_models.training",
)


def layer(module: str) -> int:
    package, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    if package == "imgalign":
        return LAYERS[name] if name else 0
    if package == "reward_models":
        return {"architecture": 1, "contract": 1, "fit": 4, "server": 4, "": 4}.get(name, 2)
    return 5


# --- imports


def test_a_module_imports_its_own_layer_and_those_below():
    above = [
        f"{module} (layer {layer(module)}) imports {name} (layer {layer(name)})"
        for module in SOURCES
        for name in ours(module)
        if layer(name) > layer(module)
    ]
    assert_none(above)


def test_every_module_of_imgalign_has_a_layer():
    names = {name.split(".")[1] for name in SOURCES if name.startswith("imgalign.")}
    assert names <= set(LAYERS), "give the new module its layer in the table above"


def test_algorithms_know_losses_and_protocols_only():
    others = [
        f"{module} imports {name}"
        for module in modules_of("imgalign.algorithms")
        for name in ours(module)
        if layer(name) > 1 and not inside(name, ("imgalign.algorithms",))
    ]
    assert_none(others)


def test_diffusion_and_language_do_not_know_each_other():
    pair = ("imgalign.diffusion", "imgalign.language")
    meetings = [
        f"{module} imports {name}"
        for one, other in (pair, pair[::-1])
        for module in modules_of(one)
        for name in ours(module)
        if inside(name, (other,))
    ]
    assert_none(meetings)


def test_comparisons_and_reports_know_nothing_of_the_embedded_world():
    world = [
        f"{module} imports {name}; it is handed in"
        for module in modules_of("imgalign.evaluate", "imgalign.report")
        for name in ours(module)
        if inside(name, ("imgalign.storybook",))
    ]
    assert_none(world)


def test_imgalign_meets_reward_models_and_the_app_only_in_its_composition_roots():
    outside = [
        f"{module} imports {name}"
        for module in modules_of("imgalign")
        if not inside(module, ROOTS)
        for name in ours(module)
        if inside(name, ("reward_models", "ui"))
    ]
    assert_none(outside)


def test_nobody_imports_a_composition_root():
    wrong = [
        f"{module} imports {name}"
        for module in SOURCES
        if not inside(module, ROOTS)
        for name in ours(module)
        if inside(name, ROOTS)
    ]
    assert_none(wrong)


def test_reward_models_use_the_two_lowest_layers_of_imgalign_and_tokens_of_language_models():
    tokens = ("chat", "loading", "token_reward")
    allowed = tuple(f"imgalign.language.{each}" for each in tokens)
    wrong = [
        f"{module} imports {name}"
        for module in modules_of("reward_models")
        for name in ours(module)
        if inside(name, ("ui",))
        or (inside(name, ("imgalign",)) and layer(name) > 1 and not inside(name, allowed))
    ]
    assert_none(wrong)


def test_the_app_uses_the_store_generation_metrics_and_settings_only():
    allowed = ("ui", *UI_MAY_IMPORT)
    wrong = [
        f"{module} imports {name}; training is a process of its own"
        for module in modules_of("ui")
        for name in ours(module)
        if name != "imgalign" and not inside(name, allowed)
    ]
    assert_none(wrong)


def test_the_app_is_wired_from_the_top_down():
    def height(name: str) -> int:
        above = {"ui.app": 3, "ui.pages": 2, "ui.api": 1}
        return max((above[part] for part in above if inside(name, (part,))), default=0)

    wrong = [
        f"{module} imports {name}"
        for module in modules_of("ui")
        for name in ours(module)
        if inside(name, ("ui",)) and height(name) > height(module)
    ]
    assert_none(wrong)


def test_the_routes_of_the_app_and_all_they_import_know_no_gradio():
    waiting = modules_of("ui.api")
    reachable = set(waiting)
    assert len(waiting) > 3
    while waiting:
        module = waiting.pop()
        assert not [name for name in imports(module) if inside(name, ("gradio",))], module
        found = {name for name in ours(module) if inside(name, ("ui",)) and name in SOURCES}
        waiting += found - reachable
        reachable |= found


def test_each_library_stays_in_its_place():
    strays = [
        f"{module} imports {library}, which belongs to {places or 'nobody'}"
        for library, places in ONLY_IN.items()
        for module in SOURCES
        if not inside(module, places)
        if any(inside(name, (library,)) for name in imports(module))
    ]
    assert_none(strays)


# --- what is done in one place


def test_tensors_are_loaded_without_running_code():
    unsafe = []
    for module in SOURCES:
        for call, function in calls(module):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            pickles = options.get("allow_pickle", "False") != "False"
            if (function in {"torch.load", "np.load"} and pickles) or (
                function == "torch.load" and options.get("weights_only") != "True"
            ):
                unsafe.append(f"{module}:{call.lineno}: {ast.unparse(call)}")
        unsafe += [
            f"{module}:{node.lineno}: call {node.module}.load by its full name"
            for node in ast.walk(tree(module))
            if isinstance(node, ast.ImportFrom) and node.module in {"torch", "numpy"}
            if "load" in [alias.name for alias in node.names]
        ]
    assert_none(unsafe)


def test_half_precision_is_decided_in_one_place():
    """Elsewhere autocast may only be switched off, so nothing runs in emulated bfloat16."""
    elsewhere = [
        f"{module}:{call.lineno}: use environment.computing_in"
        for module in SOURCES
        if module != "imgalign.environment"
        for call, function in calls(module)
        if function.endswith("autocast")
        and "enabled=False" not in [ast.unparse(each) for each in call.keywords]
    ]
    assert_none(elsewhere)


def test_foreign_images_become_pixels_in_one_place():
    """`Image.open` opens any format, by rules of its own; imgalign/images.py has the only ones."""
    elsewhere = [
        f"{module}:{call.lineno}: use imgalign.images"
        for module in SOURCES
        for call, function in calls(module)
        if function.endswith("Image.open")
    ]
    assert_none(elsewhere)


# --- importing

IMPORTABLE = sorted(
    name
    for name in SOURCES
    # Alembic runs these with a context that exists only during a migration.
    if not inside(name, ("imgalign.preferences.migrations",)) and not name.endswith("__main__")
)


def test_every_module_can_be_imported():
    for module in IMPORTABLE:
        importlib.import_module(module)


def test_every_setting_explains_itself_and_has_a_legal_default():
    for module in IMPORTABLE:
        importlib.import_module(module)
    silent, illegal = [], []
    waiting: list[type[Config]] = [Config]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model is Config or not inside(model.__module__, ("imgalign", "reward_models", "ui")):
            continue
        fields = model.model_fields
        silent += [
            f"{model.__name__}.{name}: no docstring under the field"
            for name, field in fields.items()
            if not field.description
        ]
        if not (any(each.is_required() for each in fields.values()) or inspect.isabstract(model)):
            text = model().model_dump_json(by_alias=True)
            if model.model_validate_json(text, strict=True) != model():
                illegal.append(f"{model.__name__}: its defaults do not survive a round trip")
    assert_none(silent + illegal)


@pytest.mark.parametrize(
    "module", ["imgalign", "imgalign.cli.main", "imgalign.config", "ui.recipes"]
)
def test_importing_the_entry_points_loads_neither_torch_nor_gradio(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'gradio'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("module", "libraries"),
    [
        ("imgalign.train.run", {"diffusers", "transformers", "peft", "open_clip"}),
        ("reward_models.text_fit", {"diffusers", "open_clip"}),
    ],
)
def test_libraries_of_models_are_imported_only_where_one_is_loaded(module, libraries):
    program = f"import sys, {module}; print(sorted({libraries!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "[]\n"
