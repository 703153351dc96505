"""The shape of the source: sizes, names, and what a module may not ask; offenders are listed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import (
    PACKAGES,
    ROOT,
    SOURCES,
    assert_none,
    called,
    classes,
    inside,
    is_protocol,
    methods,
    modules_of,
    tree,
)

MOST_MODULES, MOST_PACKAGES = 15, 12
LONGEST_FUNCTION, LONGEST_MODULE, LONGEST_TEST = 80, 450, 500
SCHEMAS = ("imgalign.preferences.migrations.versions",)
"""A revision of the database's schema is a record: as long as the schema, and never edited."""

HIDES_XFORMERS = ("imgalign.diffusion", "hide_broken_xformers()")
"""The one call in an `__init__`: it must come before a module of the package imports diffusers."""

ONE_ALGORITHM = re.compile(r"(?<![a-z])ppo(?![a-z])|PPO|Ppo")
"""A part of a word in snake_case or CamelCase; not `supported`, not `opposite`."""

BESIDE_PEERS = {
    ROOT / "benchmarks" / "compare_peers.py",
    *(ROOT / "benchmarks" / "peers").glob("*.py"),
}
"""They compare with trainers of other projects, each of one algorithm."""


ONE_FAMILY = re.compile(
    r"unet|text_encoder|stablediffusion|(?<![a-z])transformer(?![a-z])", re.IGNORECASE
)
"""Parts and classes of some families of text-to-image models and not of others."""


SHARED = ("imgalign.losses", "imgalign.advantages", "imgalign.algorithms", "imgalign.train.learner")
"""What images and texts are learned from alike."""

ONE_MODALITY = {
    *("image", "pixel", "latent", "diffusion", "denoising", "picture"),
    *("text", "token", "tokenizer", "vocabulary", "language", "word", "letter"),
}
"""What samples of one kind are made of."""

NAMED_BEFORE = {"dropped_images", "images_per_prompt"}
"""A metric and a setting, which are of texts as well, under names that files already have."""


def test_the_top_of_imgalign_is_a_page_and_no_name_on_it_means_two_things():
    top = ROOT / "imgalign"
    modules = [path.stem for path in top.glob("*.py")]
    packages = sorted({path.parent.name for path in top.glob("*/*.py")})
    for found, most in ((modules, MOST_MODULES), (packages, MOST_PACKAGES)):
        assert len(found) <= most, f"imgalign: expected at most {most}, got {sorted(found)}"
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
            ((ROOT / "benchmarks").rglob("*.py"), LONGEST_MODULE),
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
    texts = {
        path: text
        for place in PACKAGES
        for path, text in texts_below(ROOT / place)
        if not path.is_relative_to(ROOT / "imgalign" / "algorithms")
    }
    texts |= {
        path: path.read_text("utf-8")
        for path in (ROOT / "benchmarks").rglob("*.py")
        if path not in BESIDE_PEERS
    }
    assert {path.suffix for path in texts} >= {".py", ".js", ".html", ".css", ".json"}
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if ONE_ALGORITHM.search(line)
    ]
    named += [str(path) for path in texts if ONE_ALGORITHM.search(path.name)]
    assert_none(named)


def texts_below(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file of text, whatever its name ends with."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield path, content.decode("utf-8", "replace")


def test_settings_and_notes_inside_a_package_are_searched_too(tmp_path):
    for name in ("recipe.yaml", "pyproject.toml", "NOTES.md", "LICENSE", "a.js"):
        (tmp_path / name).write_text("algorithm: ppo\n", encoding="utf-8")
    (tmp_path / "weights.safetensors").write_bytes(b"ppo\0")
    assert sorted(path.name for path, text in texts_below(tmp_path) if "ppo" in text) == [
        *("LICENSE", "NOTES.md", "a.js", "pyproject.toml", "recipe.yaml")
    ]


def test_what_names_one_algorithm_is_told_from_words_that_hold_its_letters():
    for text in ("ppo.clip", "PPOConfig", "run_ppo", "PPO's", "PpoConfig", "ppo"):
        assert ONE_ALGORITHM.search(text), text
    for text in ("supported", "opposite", "opportunity", "Opposed", "support"):
        assert not ONE_ALGORITHM.search(text), text


def test_the_parts_of_one_family_of_models_are_named_only_among_the_families():
    """All else of the diffusion path is for every family, those with two text encoders too."""
    named = [
        f"{module}:{line}: {word}; ask the family"
        for module in modules_of("imgalign.diffusion")
        if not inside(module, ("imgalign.diffusion.families",))
        for line, word in words(module)
        if ONE_FAMILY.search(word)
    ]
    assert_none(named)


def words(module: str) -> Iterator[tuple[int, str]]:
    """Names and texts in the code of a module, which its docstrings are not, with the lines."""
    documents = {id(node.value) for node in ast.walk(tree(module)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(module)):
        match node:
            case ast.Attribute(attr=str(word)) | ast.Name(id=str(word)) | ast.arg(arg=str(word)):
                yield node.lineno, word
            case (
                ast.alias(name=str(word))
                | ast.keyword(arg=str(word))
                | ast.Constant(value=str(word))
            ):
                if id(node) not in documents:
                    yield node.lineno, word


def test_losses_algorithms_and_the_learner_name_nothing_that_only_images_or_texts_have():
    """A step is a step and a sample a sample, in code; docstrings and messages may explain."""
    assert len(modules_of(*SHARED)) > 15
    named = [
        f"{module}:{line}: {name}; say what it is to every policy"
        for module in modules_of(*SHARED)
        for line, name in identifiers(tree(module))
        if parts(name) & ONE_MODALITY
    ]
    assert_none(named)


def identifiers(code: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name in code, whatever it names, and every text that could be one, with the line."""
    documents = {id(node.value) for node in ast.walk(code) if isinstance(node, ast.Expr)}
    for node in ast.walk(code):
        match node:
            case (
                ast.Name(id=str(name))
                | ast.Attribute(attr=str(name))
                | ast.arg(arg=str(name))
                | ast.keyword(arg=str(name))
                | ast.FunctionDef(name=str(name))
                | ast.ClassDef(name=str(name))
            ):
                yield node.lineno, name
            case ast.alias(name=str(name), asname=other):
                yield from ((node.lineno, each) for each in (name, other) if each)
            case ast.ImportFrom(module=str(name)):
                yield node.lineno, name
            case ast.Constant(value=str(name)) if re.fullmatch(r"[A-Za-z_][\w.]*", name):
                if id(node) not in documents and name not in NAMED_BEFORE:
                    yield node.lineno, name


def parts(name: str) -> set[str]:
    """The words of a name in snake_case or CamelCase, in the singular."""
    found = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name.replace(".", "_"))
    return {word.lower().removesuffix("s") for word in found}


@pytest.mark.parametrize(
    "code",
    [
        "num_tokens = 3",
        "if policy.language: pass",
        "def of_images(): pass",
        "class TextLoss: pass",
        "run(pixels=1)",
        "from imgalign.language.policy import X",
        "from imgalign.policy import ReadsTokens as P",
        "if policy.config.kind == 'language': pass",
        "if policy.samples == 'texts': pass",
        "hasattr(policy, 'tokenizer')",
        "getattr(policy, 'num_tokens', None)",
        "match policy.kind:\n    case 'diffusion': pass",
    ],
)
def test_a_modality_is_seen_in_any_name(code):
    assert any(parts(name) & ONE_MODALITY for _, name in identifiers(ast.parse(code)))


def test_context_and_settings_are_no_modality():
    for name in ("contextmanager", "context", "keyword", "forward", "imagine", "noise"):
        assert not parts(name) & ONE_MODALITY, name


def concrete_classes() -> dict[str, str]:
    """Policies, reward models and what measures diversity, by name, with their modules."""
    protocols = {
        node.name: methods(node) for node in classes("imgalign.policy") if is_protocol(node)
    }
    wanted = [protocols[name] for name in ("Policy", "RewardModel", "FeatureModel")]
    nodes = [(module, node) for module in SOURCES for node in classes(module)]
    nodes = [(module, node) for module, node in nodes if not is_protocol(node)]
    found: dict[str, str] = {}
    while more := {
        node.name: module
        for module, node in nodes
        if node.name not in found
        and (
            any(each <= methods(node) for each in wanted)
            or any(last(base) in found for base in node.bases)
        )
    }:
        found |= more
    return found


def last(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def values(code: ast.Module) -> Iterator[tuple[int, str]]:
    """Names and words of texts in code, with the lines, but for what is called or annotated.

    Docstrings and imports are left out too.
    """
    spoken = {id(node) for part in spoken_of(code) for node in ast.walk(part)}
    for node in ast.walk(code):
        match node:
            case ast.Call(func=made):
                while isinstance(made, ast.Attribute):
                    spoken.add(id(made))
                    made = made.value
                spoken.add(id(made))
            case (
                ast.Name(id=str(text))
                | ast.Attribute(attr=str(text))
                | ast.Constant(value=str(text))
            ) if id(node) not in spoken:
                yield from ((node.lineno, word) for word in re.findall(r"\w+", text))


def spoken_of(code: ast.Module) -> Iterator[ast.AST]:
    """Annotations and docstrings."""
    for node in ast.walk(code):
        match node:
            case ast.arg(annotation=ast.expr() as said) | ast.AnnAssign(annotation=said):
                yield said
            case ast.FunctionDef(returns=ast.expr() as said):
                yield said
            case ast.Expr(value=ast.Constant() as said):
                yield said


def test_nobody_asks_which_policy_or_reward_model_it_was_given():
    """A concrete class is imported, called and annotated; elsewhere its name is a question."""
    concrete = concrete_classes()
    assert {"DiffusionPolicy", "ClipReward"} <= concrete.keys()
    asked = [
        f"{module}:{line}: {name}; ask for a capability, a protocol"
        for module in SOURCES
        for names in [called(module)]
        for line, word in values(tree(module))
        if (name := names.get(word, word)) in concrete and concrete[name] != module
    ]
    assert_none(asked)


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(policy, DiffusionPolicy)",
        "isinstance(policy, (Mine, policies.DiffusionPolicy))",
        "kind = DiffusionPolicy",
        "KINDS = {'a': DiffusionPolicy}",
        "type(policy) is DiffusionPolicy",
        "type(policy).__name__ == 'DiffusionPolicy'",
        "getattr(policies, 'DiffusionPolicy')",
        "'imgalign.diffusion.policy.DiffusionPolicy' in str(type(policy))",
        "match policy:\n    case DiffusionPolicy():\n        pass",
        "make(DiffusionPolicy)(config)",
    ],
)
def test_a_question_about_a_class_is_seen_however_it_is_put(code):
    assert "DiffusionPolicy" in [word for _, word in values(ast.parse(code))]


@pytest.mark.parametrize(
    "code",
    [
        "from imgalign.diffusion.policy import DiffusionPolicy",
        "policy = DiffusionPolicy(pipeline, config)",
        "policy = policies.DiffusionPolicy.from_pretrained(folder)",
        "def run(policy: DiffusionPolicy | None = None) -> list[DiffusionPolicy]: ...",
        "policy: 'DiffusionPolicy' = make()",
        "def run():\n    'Runs a DiffusionPolicy.'",
    ],
)
def test_making_and_annotating_a_class_is_no_question(code):
    assert "DiffusionPolicy" not in [word for _, word in values(ast.parse(code))]


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
