"""What may import what, how fast the command line starts, and what no line of code may do."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.command_times import HEAVY, find_heavy_imports

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    p for folder in ("msdet_cli", "experiments", "benchmarks") for p in (ROOT / folder).rglob("*.py")
)


@functools.cache
def imported(path):
    """Dotted names that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def touches(names, package):
    return sorted(n for n in names if n == package or n.startswith(package + "."))


def files_of(*parts):
    path = ROOT.joinpath(*parts)
    found = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert found
    return found


def test_the_command_line_starts_without_heavy_packages():
    assert find_heavy_imports() == []


WITHOUT_TORCH = [
    "experiments.recipes.loading",
    "experiments.runs.run_folder",
    "experiments.weighting.options",
    "experiments.data.find",
    "experiments.launching.plan",
]


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_modules_without_torch(module):
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == []


# Each layer imports only those before it; those of one line stand side by side and import none of each other.
LAYERS = [
    ["experiments.common"],
    ["experiments.weighting", "experiments.data", "experiments.runs"],
    ["experiments.recipes"],
    ["experiments.detection"],
    ["experiments.interop"],
    ["experiments.training"],
    ["experiments.launching"],
    ["experiments.reporting"],
    ["benchmarks"],
    ["msdet_cli"],
]
MORE_NEVER = {
    "experiments.common": ["torch", "mmdet", "mmengine"],
    "experiments.weighting": ["mmdet", "mmengine", "mmcv"],
    "experiments.data": ["torch", "mmdet", "mmengine"],
    "experiments.runs": ["torch", "mmdet", "mmengine"],
    "experiments.recipes": ["torch", "mmdet", "mmengine"],
    "experiments.detection": ["experiments.data", "experiments.runs", "experiments.recipes"],
    "experiments.launching": ["torch", "mmdet", "mmengine", "experiments.training", "experiments.detection"],
    "experiments.reporting": [
        "torch", "mmdet", "mmengine", "experiments.training", "experiments.detection", "experiments.launching"
    ],
}  # fmt: skip


def later_than(package):
    """The layers that `package` may not import: those after it, and those beside it."""
    place = next(i for i, layer in enumerate(LAYERS) if package in layer)
    return [other for layer in LAYERS[place:] for other in layer if other != package]


@pytest.mark.parametrize("package", [package for layer in LAYERS for package in layer])
def test_a_layer_imports_only_those_before_it(package):
    for path in files_of(*package.split(".")):
        for never in later_than(package) + MORE_NEVER.get(package, []):
            assert touches(imported(path), never) == [], path.relative_to(ROOT)


def test_every_package_stands_in_a_layer():
    packages = {f"experiments.{path.parent.name}" for path in (ROOT / "experiments").glob("*/__init__.py")}
    assert packages <= {package for layer in LAYERS for package in layer}
    assert [path.name for path in (ROOT / "experiments").glob("*.py")] == ["__init__.py"]


def test_every_package_says_what_belongs_in_it():
    for path in SOURCES:
        if path.name == "__init__.py":
            assert len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") > 40, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_read_is_run_as_code(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert called not in ("eval", "exec", "compile", "pickle.load", "pickle.loads", "os.system"), called
        if called == "torch.load":
            assert words.get("weights_only") == "True"
        if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            loader = words.get("Loader") or (ast.unparse(node.args[1]) if len(node.args) > 1 else "")
            assert called == "yaml.load" and loader.split(".")[-1] in (
                "SafeLoader",
                "PlainLoader",
                "QuickLoader",
            )
        if called.startswith("subprocess."):
            assert words.get("shell") in (None, "False")


@pytest.mark.parametrize("name", ["PlainLoader", "QuickLoader"])
def test_the_yaml_loaders_are_safe_ones(name):
    import yaml

    from experiments.recipes import yaml_format

    loader = getattr(yaml_format, name)
    assert issubclass(loader, yaml.constructor.SafeConstructor)
    with pytest.raises(yaml.YAMLError):
        yaml.load("!!python/object/apply:os.getcwd []", loader)


def test_every_command_explains_itself_with_examples():
    import typer
    from typer.testing import CliRunner

    from msdet_cli.app import app

    runner = CliRunner()
    group = typer.main.get_command(app)
    for name in group.commands:
        result = runner.invoke(app, [name, "-h"])
        assert result.exit_code == 0, name
        if name != "data":
            assert f"msdet {name}" in result.output, name
    assert runner.invoke(app, ["run", "--help"]).exit_code == 0
    assert runner.invoke(app, ["--version"]).output.startswith("msdet ")
