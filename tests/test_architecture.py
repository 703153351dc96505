"""Who may import whom, read from the source: the layers of the design and their exceptions.

    5  imgalign.{cli, demo}, every __main__                  ui.app -> .pages -> .api -> the rest
    4  imgalign.{train, evaluate, report}                    reward_models, .fit, .server
    3  imgalign.algorithms
    2  imgalign.{diffusion, language, storybook}             reward_models.*
    1  imgalign.{policy, prompts, images, runs, preferences} reward_models.{architecture, contract}
    0  imgalign, .{losses, advantages, statistics, config, explain, environment, errors, files}

A module imports its own layer and those below.
"""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = (
    "imgalign.__main__",
    "imgalign.storybook.train.__main__",
    "imgalign.cli",
    "imgalign.demo",
)
LAYERS = {
    **dict.fromkeys(["losses", "advantages", "statistics", "config", "environment"], 0),
    **dict.fromkeys(["errors", "explain", "files"], 0),
    **dict.fromkeys(["policy", "prompts", "images", "runs", "preferences"], 1),
    **dict.fromkeys(["diffusion", "language", "storybook"], 2),
    "algorithms": 3,
    **dict.fromkeys(["train", "evaluate", "report"], 4),
    **dict.fromkeys(["__main__", "cli", "demo"], 5),
}
ONLY_IN = {
    "gradio": ("ui",),
    "diffusers": ("imgalign.diffusion", "imgalign.storybook"),
    "sqlalchemy": ("imgalign.preferences",),
    "alembic": ("imgalign.preferences",),
    "typer": ("imgalign.cli", "imgalign.storybook.train.__main__"),
    "pickle": (),
    "cloudpickle": (),
    "dill": (),
    "joblib": (),
    "shelve": (),
}
UI_MAY_IMPORT = (
    "imgalign.preferences",
    "imgalign.diffusion.generate",
    "imgalign.runs",
    "imgalign.config",
    "imgalign.errors",
    "imgalign.files",
    "imgalign.images",
    "imgalign.prompts",
)


def sources() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for package in ("imgalign", "reward_models", "ui"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()
EACH_MODULE = pytest.mark.parametrize("module", sorted(SOURCES))


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Every module that this one imports, at the top or inside a function."""
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in SOURCES else base


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def layer(module: str) -> int:
    if module.endswith(".__main__"):
        return 5
    package, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    if package == "imgalign":
        return LAYERS[name] if name else 0
    if package == "reward_models":
        return {"architecture": 1, "contract": 1, "fit": 4, "server": 4, "": 4}.get(name, 2)
    return 5


def ours(module: str) -> list[str]:
    return [name for name in imports(module) if inside(name, ("imgalign", "reward_models", "ui"))]


@EACH_MODULE
def test_a_module_imports_its_own_layer_and_those_below(module):
    above = [name for name in ours(module) if layer(name) > layer(module)]
    assert not above, f"{module} (layer {layer(module)}) imports {above}"


def test_every_module_of_imgalign_has_a_layer():
    names = {name.split(".")[1] for name in SOURCES if name.startswith("imgalign.")}
    assert names <= set(LAYERS), "give the new module its layer in the table above"


def test_algorithms_know_losses_and_protocols_only():
    for module in SOURCES:
        if inside(module, ("imgalign.algorithms",)):
            others = [
                name
                for name in ours(module)
                if layer(name) > 1 and not inside(name, ("imgalign.algorithms",))
            ]
            assert not others, f"{module} imports {others}"


def test_diffusion_and_language_do_not_know_each_other():
    pair = ("imgalign.diffusion", "imgalign.language")
    for module in SOURCES:
        for one, other in (pair, pair[::-1]):
            if inside(module, (one,)):
                assert not [name for name in ours(module) if inside(name, (other,))], module


def test_comparisons_and_reports_know_nothing_of_the_embedded_world():
    for module in SOURCES:
        if inside(module, ("imgalign.evaluate", "imgalign.report")):
            world = [name for name in ours(module) if inside(name, ("imgalign.storybook",))]
            assert not world, f"{module} imports {world}; it is handed in"


def test_imgalign_meets_reward_models_and_the_app_only_in_its_composition_roots():
    for module in SOURCES:
        if inside(module, ("imgalign",)) and not inside(module, ROOTS):
            outside = [name for name in ours(module) if inside(name, ("reward_models", "ui"))]
            assert not outside, f"{module} imports {outside}"


def test_nobody_imports_a_composition_root():
    for module in SOURCES:
        wrong = [name for name in ours(module) if inside(name, ROOTS) and not inside(module, ROOTS)]
        assert not wrong, f"{module} imports {wrong}"


def test_reward_models_use_the_two_lowest_layers_of_imgalign():
    for module in SOURCES:
        if inside(module, ("reward_models",)):
            wrong = [
                name
                for name in ours(module)
                if inside(name, ("ui",)) or (inside(name, ("imgalign",)) and layer(name) > 1)
            ]
            assert not wrong, f"{module} imports {wrong}"


def test_the_app_uses_the_store_generation_metrics_and_settings_only():
    for module in SOURCES:
        if inside(module, ("ui",)):
            allowed = ("ui", *UI_MAY_IMPORT)
            wrong = [
                name for name in ours(module) if name != "imgalign" and not inside(name, allowed)
            ]
            assert not wrong, f"{module} imports {wrong}; training is a process of its own"


def test_the_app_is_wired_from_the_top_down():
    def height(name):
        above = {"ui.app": 3, "ui.pages": 2, "ui.api": 1}
        return max((above[part] for part in above if inside(name, (part,))), default=0)

    for module in SOURCES:
        if inside(module, ("ui",)):
            wrong = [
                name
                for name in ours(module)
                if inside(name, ("ui",)) and height(name) > height(module)
            ]
            assert not wrong, f"{module} imports {wrong}"


def test_the_routes_of_the_app_and_all_they_import_know_no_gradio():
    waiting = [module for module in SOURCES if inside(module, ("ui.api",))]
    reachable = set(waiting)
    assert len(waiting) > 3
    while waiting:
        module = waiting.pop()
        assert not [name for name in imports(module) if inside(name, ("gradio",))], module
        found = {name for name in ours(module) if inside(name, ("ui",)) and name in SOURCES}
        waiting += found - reachable
        reachable |= found


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_library_stays_in_its_place(library):
    for module in SOURCES:
        if not inside(module, ONLY_IN[library]):
            assert not [name for name in imports(module) if inside(name, (library,))], (
                f"{module} imports {library}, which belongs to {ONLY_IN[library] or 'nobody'}"
            )


@EACH_MODULE
def test_tensors_are_loaded_without_running_code(module):
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "np.load"}:
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert options.get("allow_pickle", "False") == "False", f"{module}:{node.lineno}"
            if ast.unparse(node.func) == "torch.load":
                assert options.get("weights_only") == "True", f"{module}:{node.lineno}"


def test_half_precision_is_decided_in_one_place():
    """Elsewhere autocast may only be switched off, so nothing runs in emulated bfloat16."""
    for module in SOURCES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("autocast"):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                allowed = module == "imgalign.environment" or options.get("enabled") == "False"
                assert allowed, f"{module}:{node.lineno}: use environment.computing_in"


def test_foreign_images_become_pixels_in_one_place():
    """`Image.open` opens any format, by rules of its own; imgalign/images.py has the only ones."""
    for module in SOURCES:
        opened = [
            node.lineno
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
        ]
        assert not opened, f"{module}:{opened}: use imgalign.images"


@EACH_MODULE
def test_shapes_stay_checkable_at_run_time(module):
    text = SOURCES[module].read_text(encoding="utf-8")
    if "jaxtyping" in text:
        assert "from __future__ import annotations" not in text
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            assert "runtime_checkable" in decorators, f"{module}:{node.lineno}: {node.name}"


IMPORTABLE = sorted(
    name
    for name in SOURCES
    # Alembic runs these with a context that exists only during a migration.
    if not inside(name, ("imgalign.preferences.migrations",)) and not name.endswith("__main__")
)


@pytest.mark.parametrize("module", IMPORTABLE)
def test_every_module_can_be_imported(module):
    importlib.import_module(module)


def test_every_setting_explains_itself_and_has_a_legal_default():
    from imgalign.config import Config

    for module in IMPORTABLE:
        importlib.import_module(module)
    waiting = [Config]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model is Config or not inside(model.__module__, ("imgalign", "reward_models", "ui")):
            continue
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}: a docstring under the field"
        if not any(field.is_required() for field in model.model_fields.values()):
            text = model().model_dump_json(by_alias=True)
            assert model.model_validate_json(text, strict=True) == model()


@pytest.mark.parametrize("module", ["imgalign", "imgalign.cli.main", "imgalign.config"])
def test_importing_the_entry_points_loads_neither_torch_nor_gradio(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'gradio'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "[]\n"
