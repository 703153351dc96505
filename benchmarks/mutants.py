"""Which small changes of a module its tests do not notice (mutation testing).

    pip install -e ".[test,mutants]"
    python benchmarks/mutants.py losses advantages kernels statistics
    python benchmarks/mutants.py statistics --again
    python benchmarks/mutants.py statistics --since afab64c
    python benchmarks/mutants.py --page

Makes all mutants of a module that cosmic-ray makes, fewer of those that replace one operator by
another (`REPLACED`), and removals: of a statement, a call, a keyword, an operand, a branch. Each is
written into a copy of the repository in a temporary folder, and the module's tests are run on it
until one fails; it survives where none does. Writes counts and survivors into
`benchmarks/results/mutants.json`, with the reasons that stood beside the same survivors before.
`--again` runs the survivors of that file only, for after tests were added. `--since` runs those of
lines that the module did not have in a commit and that are not in that file; it prints what
survives, and writes nothing. `--page` prints the
tables of `docs/quality.md`. A mutant takes one or two seconds, all of them an hour.

Linux and macOS: tests run in forks of a process that has loaded the libraries.
"""

import argparse
import ast
import difflib
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
CORE = "tests/core/"
MODULES = {
    "losses": (
        "imgalign/losses.py",
        [
            CORE + "test_losses.py",
            CORE + "test_plackett_luce.py",
            CORE + "test_against_published_formulas.py",
        ],
    ),
    "advantages": (
        "imgalign/advantages.py",
        [
            CORE + "test_advantages.py",
            CORE + "test_losses.py",
            CORE + "test_against_published_formulas.py",
        ],
    ),
    "kernels": ("imgalign/diffusion/kernels.py", ["tests/diffusion/test_kernels.py"]),
    "statistics": ("imgalign/statistics.py", [CORE + "test_statistics.py"]),
}
LOADED = (
    "torch",
    "diffusers.schedulers.scheduling_ddim",
    "scipy.stats",
    "hypothesis.strategies",
    "jaxtyping",
    "beartype",
    "pytest",
)
"""Libraries that tests of these modules import, which takes longer than to run them."""
REPLACED = {
    "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "FloorDiv": "Div Mul", "Pow": "Mul",
    "Mod": "Mul", "BitAnd": "BitOr", "BitOr": "BitAnd", "MatMul": "Mul", "Lt": "LtE GtE",
    "LtE": "Lt Gt", "Gt": "GtE LtE", "GtE": "Gt Lt", "Eq": "NotEq LtE GtE", "NotEq": "Eq",
    "Is": "IsNot", "IsNot": "Is", "In": "NotIn", "NotIn": "In",
}  # fmt: skip
"""Operators by which one is replaced: the nearest, as tests that see these see the others."""
OTHERS = {
    "minimum": "maximum", "maximum": "minimum", "amin": "amax", "amax": "amin", "min": "max",
    "max": "min",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A module with one change: lines that it had, lines that it has instead."""

    code: str
    was: str
    now: str


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a file, each of them once."""
    source = (ROOT / module).read_text(encoding="utf-8")
    codes = dict.fromkeys([*from_cosmic_ray(ROOT / module, source), *removals(source)])
    codes.pop(source, None)
    return [changed(source, code) for code in codes]


def changed(source: str, code: str) -> Mutant:
    """A mutant, with the lines that differ."""
    before, after = source.splitlines(), code.splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    differ = [block for block in blocks if block[0] != "equal"]
    was = [line.strip() for _, start, end, _, _ in differ for line in before[start:end]]
    now = [line.strip() for _, _, _, start, end in differ for line in after[start:end]]
    return Mutant(code=code, was="\n".join(was), now="\n".join(now))


def from_cosmic_ray(path: Path, source: str) -> Iterator[str]:
    """Those of cosmic-ray, without operators that `REPLACED` leaves out and type annotations."""
    import cosmic_ray.plugins
    from cosmic_ray.commands.init import _all_work_items
    from cosmic_ray.mutating import mutate_code

    lines = source.splitlines()
    for item in _all_work_items([path], {}):
        (spot,) = item.mutations
        _, _, kind = spot.operator_name.partition("/")
        parts = kind.split("_")
        line = lines[spot.start_pos[0] - 1]
        if parts[0] in ("ReplaceBinaryOperator", "ReplaceComparisonOperator"):
            if parts[2] not in REPLACED.get(parts[1], "").split():
                continue
            if parts[1] == "BitOr" and is_annotated(line):
                continue
        elif parts[0] == "ReplaceUnaryOperator" and "Delete" not in kind:
            continue
        operator = cosmic_ray.plugins.get_operator(spot.operator_name)()
        if code := mutate_code(source, operator, spot.occurrence):
            yield code


def is_annotated(line: str) -> bool:
    """True if a | of this line is one of types."""
    return " | " in line and any(name in line for name in ("None", "Ints", "Sequence"))


def removals(source: str) -> Iterator[str]:
    """The source with something removed, or replaced by what is next to it."""
    raw = source.encode()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))

    def span(node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            starts[node.lineno - 1] + node.col_offset,
            starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(node: ast.expr) -> str:
        start, end = span(node)
        return raw[start:end].decode()

    for node in ast.walk(ast.parse(source)):
        for place, new in changes_of(node, text):
            start, end = span(place)
            before, after = raw[:start].decode(), raw[end:].decode()
            if isinstance(place, ast.keyword):  # with the comma before it, or else after it
                if before.rstrip().endswith(","):
                    before = before.rstrip()[:-1]
                elif after.lstrip().startswith(","):
                    after = after.lstrip()[1:]
            code = before + new + after
            try:
                ast.parse(code)
            except SyntaxError:
                continue
            yield code


Change = tuple[Any, str]


def changes_of(node: ast.AST, text: Callable[[ast.expr], str]) -> Iterator[Change]:
    """Nodes to replace, and by what."""
    match node:
        case ast.Return(col_offset=column) if column:
            yield node, "return None"
        case ast.Assign() | ast.AugAssign() | ast.Assert() | ast.Raise() if node.col_offset:
            yield node, "pass"
        case ast.Expr(value=value) if node.col_offset and not isinstance(value, ast.Constant):
            yield node, "pass"
        case ast.If(test=test) | ast.IfExp(test=test):
            yield test, "(True)"
            yield test, "(False)"
        case ast.BoolOp(values=values):
            yield from ((node, f"({text(value)})") for value in values)
        case ast.BinOp(left=left, right=right):
            if not is_annotated(text(node)):
                yield node, f"({text(left)})"
                yield node, f"({text(right)})"
        case ast.FunctionDef(args=arguments):
            for default in [*arguments.defaults, *filter(None, arguments.kw_defaults)]:
                value = default.value if isinstance(default, ast.Constant) else None
                if type(value) in (int, float):
                    yield default, repr(value * (0.5 if type(value) is float else 2))
        case ast.Constant(value=float()):
            yield node, repr(node.value * 1.1)
        case ast.Attribute(value=value, attr=name) if name in OTHERS:
            yield node, f"{text(value)}.{OTHERS[name]}"
        case ast.Call():
            yield from changes_of_call(node, text)


def changes_of_call(node: ast.Call, text: Callable[[ast.expr], str]) -> Iterator[Change]:
    """A call without itself or one of its keywords, or of the opposite function."""
    match node.func:
        case ast.Attribute(value=ast.Name(id="torch" | "np" | "math")):
            if len(node.args) == 1 and not node.keywords:
                yield node, f"({text(node.args[0])})"
        case ast.Attribute(value=value):
            yield node, f"({text(value)})"
        case ast.Name(id="min" | "max" as name):
            yield node.func, OTHERS[name]
        case _ if len(node.args) == 1 and not node.keywords:
            yield node, f"({text(node.args[0])})"
    yield from ((keyword, "") for keyword in node.keywords)


def run_tests(tests: list[str], *, seconds: int) -> tuple[bool, float]:
    """Whether all pass, in a fork that has not loaded imgalign, and the CPU time they took."""
    process = os.fork()
    if process == 0:
        status = 3
        try:
            import pytest

            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
            options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # loaded before
            status = int(pytest.main([*options, *tests]))
        finally:
            os._exit(status)
    _, status, usage = os.wait4(process, 0)
    return status == 0, usage.ru_utime + usage.ru_stime


def since(mutants: list[Mutant], module: str, commit: str) -> list[Mutant]:
    """Mutants of lines that are not in the module as a commit has it."""
    command = ["git", "-C", str(ROOT), "show", f"{commit}:{module}"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    there = {line.strip() for line in shown.splitlines()}
    return [each for each in mutants if not there.issuperset(each.was.splitlines())]


def survivors_of(mutants: list[Mutant], module: str, tests: list[str]) -> list[Mutant]:
    """Those with which all tests pass. The working folder is the copy that is changed."""
    path, source = Path(module), Path(module).read_text(encoding="utf-8")
    passed, taken = run_tests(tests, seconds=600)
    if not passed:
        raise SystemExit(f"error: {module}: expected tests that pass before anything is changed")
    found, start = [], time.monotonic()
    for number, mutant in enumerate(mutants, start=1):
        path.write_text(mutant.code, encoding="utf-8")
        survived, _ = run_tests(tests, seconds=15 + int(4 * taken))
        if survived:
            found.append(mutant)
        if number % 25 == 0 or number == len(mutants):
            passed_time = round(time.monotonic() - start)
            print(f"{module}: {number} of {len(mutants)}, {len(found)} survived, {passed_time} s")
    path.write_text(source, encoding="utf-8")
    return found


def enter_a_copy(folder: str) -> None:
    """Work in a copy of what tests read, and load the libraries that forks share."""
    for name in ("imgalign", "reward_models", "ui", "tests", "configs"):
        shutil.copytree(
            ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    os.chdir(folder)
    sys.path[:] = [folder, *(path for path in sys.path if Path(path).resolve() != ROOT)]
    sys.dont_write_bytecode = True
    for name in LOADED:
        importlib.import_module(name)
    assert not any(name.partition(".")[0] == "imgalign" for name in sys.modules)


def page(results: dict[str, Any]) -> str:
    """The tables of docs/quality.md."""
    lines = ["| module | mutants | killed | equivalent | left |", "|---|---|---|---|---|"]
    for module in results["modules"]:
        lines.append(f"| {' | '.join(map(str, counts_of(module)))} |")
    for module in results["modules"]:
        title = f"### `{module['path']}`, commit {module['commit']}"
        lines += ["", title, "", "| was | survived as | why |", "|---|---|---|"]
        for each in module["survivors"]:
            why = each["why"] if each["equivalent"] else f"Left: {each['why']}"
            lines.append(f"| {cell(each['was'])} | {cell(each['now'])} | {why} |")
    return "\n".join(lines)


def commit() -> str:
    """What the modules were when they were changed."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def counts_of(module: dict[str, Any]) -> tuple[str, int, int, int, int]:
    """A row of the first table."""
    survivors = module["survivors"]
    equivalent = sum(each["equivalent"] for each in survivors)
    return (
        f"`{module['path']}`",
        module["mutants"],
        module["mutants"] - len(survivors),
        equivalent,
        len(survivors) - equivalent,
    )


def cell(code: str) -> str:
    """Code in a cell of a table."""
    code = " ".join(code.split()).replace("|", "\\|")
    return f"`{code}`" if code else ""


def main() -> None:
    """Run the mutants of the modules that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", choices=[[], *MODULES])
    parser.add_argument("--again", action="store_true", help="survivors of the last time only")
    parser.add_argument("--since", metavar="COMMIT", help="mutants of lines that are newer only")
    parser.add_argument("--page", action="store_true", help="print the tables of docs/quality.md")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if options.page:
        print(page(results))
        return
    known = {module["path"]: module for module in results.get("modules", [])}
    with tempfile.TemporaryDirectory() as folder:
        enter_a_copy(folder)
        for name in options.modules:
            module, tests = MODULES[name]
            reasons = {(e["was"], e["now"]): e for e in known.get(module, {}).get("survivors", [])}
            mutants = mutants_of(module)
            if options.since:
                newer = since(mutants, module, options.since)
                newer = [each for each in newer if (each.was, each.now) not in reasons]
                for each in survivors_of(newer, module, tests):
                    print(f"{each.was!r} survived as {each.now!r}")
                continue
            again = [each for each in mutants if (each.was, each.now) in reasons]
            survivors = survivors_of(again if options.again else mutants, module, tests)
            rows = []
            for each in survivors:
                row = {"was": each.was, "now": each.now, "equivalent": False, "why": ""}
                rows.append(reasons.get((each.was, each.now), row))
            counted = {"path": module, "commit": commit(), "mutants": len(mutants)}
            known[module] = {**counted, "survivors": rows}
            ordered = [known[path] for path, _ in MODULES.values() if path in known]
            text = json.dumps({"modules": ordered}, indent=1, ensure_ascii=False)
            RESULTS.write_text(text + "\n", encoding="utf-8")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
