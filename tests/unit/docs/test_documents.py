"""What the documents say, held against the tree: links, commands, names, and their own form."""

from __future__ import annotations

import ast
import csv
import functools
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
import yaml
from pydantic import BaseModel

from experiments.common.errors import EXIT_CLASSES
from experiments.data.spec import DatasetSpec
from experiments.launching.slurm.options import KEYS as SLURM_KEYS
from experiments.recipes.schema import WHERE, Recipe, Schedule
from experiments.recipes.tables import Block, Row, Table
from experiments.weighting.options import ACTIONS, OPTIONS, RloOptions, check_options
from msdet_cli.app import app

ROOT = Path(__file__).resolve().parents[3]
# Not results/evidence: its pages are written by `msdet report`.
WRITTEN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results" / "README.md"])
PAGES = sorted(ROOT.glob("recipes/**/*.yaml"))
MAX_LINE_CHARS = 100
MAX_README_LINES = 130
MAX_STOPS = 10

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
INLINE_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)>\s]+)>?\)|(?:src|href)=\"([^\"]+)\"")
REFERENCE = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)
REFERENCED = re.compile(r"\]\[([^\]]+)\]")
NAMED = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)(?:::([\w.]+))?`")


def name_of(path: Path) -> str:
    """Return a path as a test's id."""
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """Return a document without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def links(path: Path) -> list[str]:
    """Return the targets of all links in a document."""
    text = prose(path)
    return [a or b for a, b in INLINE_LINK.findall(text)] + [target for _, target in REFERENCE.findall(text)]


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(path: Path) -> list[str]:
    """Return the `msdet ...` lines in a document's code blocks, and in the comments of a recipe's page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return [line.split("  ")[0] for line in re.findall(r"^#   (msdet .+)$", text, re.MULTILINE)]
    blocks = "\n".join(FENCE.findall(text)).replace("\\\n", " ")
    return re.findall(r"^(?:\$ )?(msdet .+)$", blocks, re.MULTILINE)


@functools.cache
def command_line() -> Any:
    """Return the whole command line as a click command."""
    return typer.main.get_command(app)


def parse(line: str) -> None:
    """Parse a command as the command line does, without running it."""
    words = shlex.split(line, comments=True)[1:]
    command = command_line()
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands") or not words, f"no command: {line}"
    command.make_context(command.name, words)


def definitions(path: Path) -> set[str]:
    """Return the functions and classes of a file, and their methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = unquote(link).partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_reference_is_defined_and_every_definition_used(path: Path) -> None:
    defined = {name for name, _ in REFERENCE.findall(prose(path))}
    used = set(REFERENCED.findall(prose(path)))
    assert used <= defined, path
    assert defined <= used | set(re.findall(r"\[([^\]]+)\](?![:(\[])", prose(path))), path


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_lines_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > MAX_LINE_CHARS] == []


def test_the_readme_is_short_and_shows_the_pipeline() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    assert "docs/images/pipeline.svg" in text


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, id=f"{name_of(p)}: {line}") for p in [*WRITTEN, *PAGES] for line in commands(p)],
)
def test_every_command_in_the_documents_is_one(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", ["msdet walk", "msdet run", "msdet run a --sed 1", "msdet diff 5 6 7"])
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"no command|Missing|No such option|unexpected"):
        parse(line)


def test_the_measured_numbers_are_those_of_the_report() -> None:
    """The difference of every row of the evidence stands on the page that goes through the paper."""
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "results" / "evidence").glob("*/*.csv"))
    assert files
    for file in files:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            if row["measured_difference"]:
                ends = ("measured_difference", "measured_difference_low", "measured_difference_high")
                change, low, high = (float(row[name]) for name in ends)
                assert f"{change:+.1f} [{low:+.1f}, {high:+.1f}]" in text, (file.name, row["label"])


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## Commands") : text.index("## Results")]
    listed = set(re.findall(r"`(\w+)`", table.replace("`ls`, `verify`, `download`, `make`", "")))
    assert listed == set(command_line().commands)


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_file_and_function_that_is_named_exists(path: Path) -> None:
    for file, name in NAMED.findall(prose(path)):
        if not file.startswith(("experiments/", "msdet_cli/", "benchmarks/", "tests/")):
            continue
        assert (ROOT / file).exists(), file
        assert not name or name in definitions(ROOT / file), f"{file}::{name}"


def test_the_walk_from_command_to_table_has_at_most_ten_stops() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walk = text[text.index("## A newcomer's walk") : text.index("## Each step")]
    stops = re.findall(r"^\| (\d+) \|", walk, re.MULTILINE)
    assert stops == [str(n + 1) for n in range(len(stops))]
    assert 5 <= len(stops) <= MAX_STOPS


def fields_of(model: type[BaseModel]) -> set[str]:
    """Return the keys that a page of this kind may have."""
    return set(model.model_fields)


def trace_columns() -> list[str]:
    """Return the columns of `trace.csv`, without importing the detectors."""
    module = ast.parse((ROOT / "experiments/detection/level_weighting/trace.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(n.targets[0]): n.value for n in module.body if isinstance(n, ast.Assign)}
    return ast.literal_eval(assigned["COLUMNS"])


DOCUMENTED = {
    "recipes.md": {
        *fields_of(Recipe), *fields_of(Schedule), *OPTIONS, "extends", "profiles", "alpha_scale", "where", *WHERE,
        *(name for options in OPTIONS.values() for name in options.model_fields), *ACTIONS,
    },
    "data.md": fields_of(DatasetSpec) - {"splits"} | {"splits.train", "splits.val", "….annotations", "….images"},
    "running.md": {*SLURM_KEYS, "sbatch.<name>", *trace_columns()},
    "extending.md": fields_of(Row) | fields_of(Table) | fields_of(Block),
}  # fmt: skip


@pytest.mark.parametrize("page", DOCUMENTED)
def test_every_key_is_documented(page: str) -> None:
    text = prose(ROOT / "docs" / page)
    assert [key for key in sorted(DOCUMENTED[page]) if f"`{key}`" not in text] == []


def test_the_defaults_of_rule_options_are_the_documented_ones() -> None:
    text = prose(ROOT / "docs" / "recipes.md")
    for name, field in RloOptions.model_fields.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        default = field.default if name != "actions" else "all four"
        shown = str(list(default)) if isinstance(default, tuple) else str(default).replace("e-0", "e-")
        assert shown in row, row


def test_exit_codes_are_documented() -> None:
    text = prose(ROOT / "docs" / "running.md")
    assert [code for code in EXIT_CLASSES if f"| {code} | " not in text] == []


@pytest.mark.parametrize(
    "text",
    [block for p in WRITTEN for block in re.findall(r"^```yaml\n(.*?)^```$", p.read_text(), re.M | re.S)],
)
def test_every_page_of_yaml_in_the_documents_is_valid(text: str) -> None:
    page = yaml.safe_load(text)
    if "blocks" in page:
        Table.model_validate(page)
    elif "splits" in page:
        DatasetSpec.model_validate(page)
    else:
        assert page.keys() <= {*fields_of(Recipe), "extends", "profiles"}
        weighting = dict(page["weighting"])
        check_options(weighting.pop("rule"), weighting)
