"""`msdet cp`: a recipe's page, to be changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.markup import escape

from experiments.common.errors import UserError
from experiments.common.files import display_path, read_text, write_text
from experiments.recipes import catalogue
from experiments.recipes.yaml_format import PlainDumper, PlainLoader
from msdet_cli.options import RecipeArg

REFERENCES = {"extends": "recipe", "dataset": "dataset", "model": None, "init_from": None}


def cp(
    recipe: RecipeArg,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to; .yaml is added where it is missing.")
    ],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace FILE if it exists.")] = False,
) -> None:
    """Copy a recipe's page, comments and all, to change it.

    What it extends stays where it is; the copy refers to it.

    \b
    msdet cp retinanet-r50-rlo my-rlo.yaml
    """
    source = catalogue.find("recipe", recipe)
    target = _target(file, source.name)
    if target.exists() and target.samefile(source):
        raise UserError(f"{file}: is the recipe itself", f"name another file: msdet cp {recipe} FILE")
    if target.exists() and not force:
        raise UserError(f"{file}: exists already", f"to replace it: msdet cp {recipe} {file} --force")
    catalogue.read_yaml(source)  # a page that cannot be read is not worth copying
    text = relocated(read_text(source), source.parent, target)
    try:
        write_text(target, text)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror or error}") from None
    console = Console(highlight=False)
    console.print(escape(f"{display_path(source)} -> {target}\nnext: msdet show {target}"), soft_wrap=True)


def _target(file: Path, name: str) -> Path:
    file = file.expanduser()
    if file.is_dir():
        raise UserError(f"{file}: is a folder", f"name the file: {file / name}")
    if file.suffix not in (".yaml", ".yml"):
        file = file.with_name(f"{file.name}.yaml")
    if not file.parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}", f"mkdir -p {file.parent}")
    return file


def relocated(text: str, source: Path, target: Path) -> str:
    """The page with its references to files rewritten so that they mean the same from `target`.

    Args:
        text: The page.
        source: The folder it lies in.
        target: The file it will be.
    """
    home = target.parent.resolve()
    page = yaml.compose(text, PlainLoader)
    assert isinstance(page, yaml.MappingNode)  # it has been read as one
    for node, kind in reversed(list(_references(page))):
        meant = _meant(kind, node.value, source)
        if meant == target.resolve():
            raise UserError(f"{target}: the recipe rests on this file, so it cannot take its place")
        # a name or path that would mean the copy itself, once that is there
        hidden = kind == "recipe" and home / node.value in (home / target.name, home / target.stem)
        if meant is None or (_meant(kind, node.value, home) == meant and not hidden):
            continue
        new = os.path.relpath(meant, home)
        new = new if new.startswith(".") else f"./{new}"  # a path, never a name
        text = text[: node.start_mark.index] + _quoted(new) + text[node.end_mark.index :]
    return text


def _references(page: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, str | None]]:
    """The values in a page that may refer to files, in the order in which they stand."""
    for key, value in page.value:
        if key.value in REFERENCES and isinstance(value, yaml.ScalarNode):
            yield value, REFERENCES[key.value]
        elif key.value == "profiles" and isinstance(value, yaml.MappingNode):
            for _, block in value.value:
                if isinstance(block, yaml.MappingNode):
                    yield from _references(block)


def _meant(kind: str | None, ref: str, base: Path) -> Path | None:
    """The file that `ref` means in a page in the folder `base`; None for what is no file."""
    if kind is None:
        path = catalogue.resolve_path(ref, base)
        return path.resolve() if catalogue.is_file(path) else None
    try:
        return catalogue.find(kind, ref, base)
    except UserError:
        return None


def _quoted(path: str) -> str:
    return yaml.dump(path, Dumper=PlainDumper, allow_unicode=True, width=10_000).splitlines()[0]
