"""Who may import whom, and the shape of the source: the layers of the design and their exceptions.

    5  imgalign.{cli, demo}, every __main__                  ui.app -> .pages -> .api -> the rest
    4  imgalign.{train, evaluate, report}                    reward_models, .fit, .server
    3  imgalign.algorithms
    2  imgalign.{diffusion, language, storybook}             reward_models.*
    1  imgalign.{policy, prompts, images, runs, preferences} reward_models.{architecture, contract}
    0  imgalign, .{losses, advantages, statistics, config, explain, environment, errors, files}

A module imports its own layer and those below. Each test lists all that offend it.
"""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from source_tree import (
    ROOT,
    SOURCES,
    calls,
    classes,
    imports,
    inside,
    is_protocol,
    methods,
    modules_of,
    ours,
    tree,
)

from imgalign.config import Config

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
    "accelerate": ("imgalign.train.world",),
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

MOST_MODULES, MOST_PACKAGES = 14, 10
LONGEST_FUNCTION, LONGEST_MODULE, LONGEST_TEST = 80, 450, 500
SCHEMAS = ("imgalign.preferences.migrations.versions",)
"""A revision of the database's schema is a record: as long as the schema, and never edited."""

HIDES_XFORMERS = ("imgalign.diffusion", "hide_broken_xformers()")
"""The one call in an `__init__`: it must come before a module of the package imports diffusers."""

ONE_ALGORITHM = re.compile(r"(?<![a-z])ppo(?![a-z])|PPO|Ppo")
"""A part of a word in snake_case or CamelCase; not `supported`, not `opposite`."""


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


def assert_none(offenders: list[str]) -> None:
    assert not offenders, "\n".join(offenders)


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


def test_reward_models_use_the_two_lowest_layers_of_imgalign():
    wrong = [
        f"{module} imports {name}"
        for module in modules_of("reward_models")
        for name in ours(module)
        if inside(name, ("ui",)) or (inside(name, ("imgalign",)) and layer(name) > 1)
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


# --- shape


def test_the_top_of_imgalign_is_a_page_and_no_name_on_it_means_two_things():
    top = ROOT / "imgalign"
    modules = [path.stem for path in top.glob("*.py")]
    packages = [path.parent.name for path in top.glob("*/__init__.py")]
    assert len(modules) <= MOST_MODULES, sorted(modules)
    assert len(packages) <= MOST_PACKAGES, sorted(packages)
    names = [name.lower() for name in modules + packages]
    assert sorted(names) == sorted(set(names))


def test_an_init_holds_no_logic():
    logic = [
        f"{module}:{node.lineno}: {ast.unparse(node)[:60]}"
        for module, path in SOURCES.items()
        if path.name == "__init__.py"
        for node in tree(module).body
        if not is_declaration(node) and (module, ast.unparse(node)) != HIDES_XFORMERS
    ]
    assert_none(logic)


def is_declaration(node: ast.stmt) -> bool:
    """A docstring, a re-export, `__all__` or `__version__`."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.ImportFrom():
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
            return True
    return False


def test_functions_and_modules_are_short_enough_to_be_read_at_once():
    long = [
        f"{path.relative_to(ROOT)}: {count} lines, expected at most {limit}"
        for paths, limit in [
            (SOURCES.values(), LONGEST_MODULE),
            ((ROOT / "tests").rglob("*.py"), LONGEST_TEST),
        ]
        for path in paths
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > limit
    ]
    for module in SOURCES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside(
                module, SCHEMAS
            ):
                assert node.end_lineno is not None
                if (count := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION:
                    long.append(f"{module}.{node.name}: {count} lines, expected at most 80")
    assert_none(long)


def test_one_algorithm_is_named_only_among_the_algorithms():
    """All else is for every algorithm: the name of one there is the start of a special case."""
    paths = [
        path
        for place in ("imgalign", "reward_models", "ui", "benchmarks")
        for path in sorted((ROOT / place).rglob("*"))
        if path.suffix in {".py", ".js", ".html", ".css"}
        and not path.is_relative_to(ROOT / "imgalign" / "algorithms")
    ]
    assert len(paths) > len(SOURCES) - 20
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if ONE_ALGORITHM.search(line)
    ]
    assert_none(named)


def test_what_names_one_algorithm_is_told_from_words_that_hold_its_letters():
    for text in ("ppo.clip", "PPOConfig", "run_ppo", "PPO's", "PpoConfig", "ppo"):
        assert ONE_ALGORITHM.search(text), text
    for text in ("supported", "opposite", "opportunity", "Opposed", "support"):
        assert not ONE_ALGORITHM.search(text), text


def concrete_classes() -> dict[str, str]:
    """Policies, reward models and what measures diversity, by name, with their modules."""
    protocols = {
        node.name: methods(node) for node in classes("imgalign.policy") if is_protocol(node)
    }
    wanted = [protocols[name] for name in ("Policy", "RewardModel", "FeatureModel")]
    return {
        node.name: module
        for module in SOURCES
        for node in classes(module)
        if not is_protocol(node) and any(each <= methods(node) for each in wanted)
    }


def type_tests(module: str) -> Iterator[tuple[int, str]]:
    """The classes that a module asks an object about, with the lines."""
    for call, function in calls(module):
        if function in {"isinstance", "issubclass"} and len(call.args) == 2:
            for node in ast.walk(call.args[1]):
                yield call.lineno, ast.unparse(node).rpartition(".")[2]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.MatchClass):
            yield node.cls.lineno, ast.unparse(node.cls).rpartition(".")[2]


def test_nobody_asks_which_policy_or_reward_model_it_was_given():
    concrete = concrete_classes()
    assert {"DiffusionPolicy", "ClipReward"} <= concrete.keys()
    asked = [
        f"{module}:{line}: {name}; ask for a capability, a protocol"
        for module in SOURCES
        for line, name in type_tests(module)
        if name in concrete and concrete[name] != module
    ]
    assert_none(asked)


def test_shapes_stay_checkable_at_run_time():
    unchecked = [
        f"{module}: postponed annotations hide shapes from the checker"
        for module, path in SOURCES.items()
        if "jaxtyping" in (text := path.read_text(encoding="utf-8"))
        and "from __future__ import annotations" in text
    ]
    unchecked += [
        f"{module}:{node.lineno}: {node.name} is no runtime_checkable protocol"
        for module in SOURCES
        for node in classes(module)
        if is_protocol(node)
        and "runtime_checkable" not in [ast.unparse(each) for each in node.decorator_list]
    ]
    assert_none(unchecked)


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
    broken = []
    for module in IMPORTABLE:
        try:
            importlib.import_module(module)
        except Exception as error:
            broken.append(f"{module}: {error!r}")
    assert_none(broken)


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
        if not any(field.is_required() for field in fields.values()):
            text = model().model_dump_json(by_alias=True)
            if model.model_validate_json(text, strict=True) != model():
                illegal.append(f"{model.__name__}: its defaults do not survive a round trip")
    assert_none(silent + illegal)


@pytest.mark.parametrize("module", ["imgalign", "imgalign.cli.main", "imgalign.config"])
def test_importing_the_entry_points_loads_neither_torch_nor_gradio(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'gradio'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "[]\n"
