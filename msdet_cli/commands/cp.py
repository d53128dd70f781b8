"""`msdet cp`: a recipe's page, to be changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import yaml
from rich.console import Console

from experiments.common.errors import UserError
from experiments.common.files import display_path, read_text, refusing, write_text
from experiments.recipes import catalogue
from experiments.recipes.yaml_format import PlainDumper, PlainLoader
from msdet_cli.console.output import print_line
from msdet_cli.options import RecipeArg, argument, option

REFERENCES = {"extends": "recipe", "dataset": "dataset", "model": None, "init_from": None}


def cp(
    recipe: RecipeArg,
    file: Annotated[Path, argument("FILE", "Target file; a missing .yaml is added.")],
    force: Annotated[bool, option("--force -f", "Replace FILE if it exists.")] = False,
) -> None:
    """Copy a recipe's file, with its comments, to change it.

    The copy refers to the files that the recipe refers to.

    \b
    msdet cp retinanet-r50-rlo my-rlo.yaml
    """
    source = catalogue.find("recipe", recipe)
    target = _target(file, source.name)
    if target.exists() and target.samefile(source):
        raise UserError(f"{file}: is the recipe itself", f"msdet cp {recipe} OTHER-FILE")
    if target.exists() and not force:
        raise UserError(f"{file}: exists already", f"msdet cp {recipe} {file} --force")
    catalogue.read_yaml(source)  # refuse to copy an invalid file
    text = relocated(read_text(source), source.parent, target)
    with refusing(f"{target}: cannot be written"):
        write_text(target, text)
    print_line(Console(), f"{display_path(source)} -> {target}\nnext: msdet show {target}")


def _target(file: Path, name: str) -> Path:
    file = file.expanduser()
    if file.is_dir():
        raise UserError(f"{file}: is a folder", f"name the file: {file / name}")
    if file.suffix not in (".yaml", ".yml"):
        file = file.with_name(f"{file.name}.yaml")
    if not file.parent.is_dir():
        raise UserError(f"{file}: folder {file.parent} not found", f"mkdir -p {file.parent}")
    return file


def relocated(text: str, source: Path, target: Path) -> str:
    """Return a recipe file's text, from folder `source`, with file references that hold in the file `target`."""
    home = target.parent.resolve()
    page = yaml.compose(text, PlainLoader)
    assert isinstance(page, yaml.MappingNode)  # `read_yaml` has checked it
    for node, kind in reversed(list(_references(page))):
        found = _find(kind, node.value, source)
        if found == target.resolve():
            raise UserError(f"{target}: the recipe refers to this file, so the copy cannot replace it")
        # a name or path that would refer to the copy itself
        hidden = kind == "recipe" and home / node.value in (home / target.name, home / target.stem)
        if found is None or (_find(kind, node.value, home) == found and not hidden):
            continue
        new = os.path.relpath(found, home)
        new = new if new.startswith(".") else f"./{new}"  # a path, never a name
        quoted = yaml.dump(new, Dumper=PlainDumper, allow_unicode=True, width=10_000).splitlines()[0]
        text = text[: node.start_mark.index] + quoted + text[node.end_mark.index :]
    return text


def _references(page: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, str | None]]:
    """Yield the nodes that may refer to files, in file order, with the kind of file."""
    for key, value in page.value:
        if key.value in REFERENCES and isinstance(value, yaml.ScalarNode):
            yield value, REFERENCES[key.value]
        elif key.value == "profiles" and isinstance(value, yaml.MappingNode):
            for _, block in value.value:
                if isinstance(block, yaml.MappingNode):
                    yield from _references(block)


def _find(kind: str | None, ref: str, base: Path) -> Path | None:
    """Return the file that `ref` refers to in folder `base`; None if it is no file."""
    if kind is None:
        path = catalogue.resolve_path(ref, base)
        return path.resolve() if catalogue.is_file(path) else None
    try:
        return catalogue.find(kind, ref, base)
    except UserError:
        return None
