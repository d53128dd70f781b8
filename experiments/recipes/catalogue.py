"""The YAML pages (recipes, profiles, data sets, tables): found by name or path, and read. No torch."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import os
from pathlib import Path
from typing import Any

import yaml

from experiments.common.checking import check_keys, validate
from experiments.common.errors import UserError, did_you_mean
from experiments.common.files import display_path, is_folder, read_text
from experiments.data.spec import DatasetSpec
from experiments.recipes.yaml_format import parse_quickly, parse_yaml

FOLDERS = {"recipe": "", "profile": "profiles", "dataset": "datasets", "table": "tables"}
_SUFFIXES = (".yaml", ".yml")


def find(kind: str, ref: str, base: Path | None = None) -> Path:
    """Return the file that a name or path means.

    A path (it holds a separator, or ends in .yaml or .yml) is looked for below `base` and then as it is.
    A name is looked for below `base`, in `./recipes`, and among the recipes shipped with the project.

    Args:
        kind: One of FOLDERS.
        base: The folder of the file that holds `ref`, if any.

    Raises:
        UserError: There is no such file; offers the nearest name.
    """
    if not isinstance(ref, str) or not ref.strip():
        raise UserError(f"{_in_words(kind)} {ref!r} is not a name or a path", f"msdet ls {kind}s")
    if is_path(ref):
        return _find_path(kind, ref, base)
    for path in (folder / (ref + suffix) for folder in _folders(kind, base) for suffix in _SUFFIXES):
        if is_file(path):
            return path.resolve()
    raise UserError(
        f"{_in_words(kind)} '{ref}' not found; {did_you_mean(ref, list_pages(kind))}", f"msdet ls {kind}s"
    )


def is_path(ref: str) -> bool:
    """Whether `ref` is a path to a YAML file rather than a name."""
    return "/" in ref or os.sep in ref or ref.endswith(_SUFFIXES)


def name_of(ref: str) -> str:
    """Return the name of the page that a name or path means; the page need not exist."""
    return Path(ref).stem if is_path(ref) else ref


def resolve_path(ref: str, base: Path | None = None) -> Path:
    """Return `ref` as a path, relative to `base` unless it is absolute, with `~` expanded."""
    path = Path(os.path.expanduser(Path(ref)))  # noqa: PTH111 - Path's own raises where a `~user` has no home
    return path if base is None else base / path


def is_file(path: Path) -> bool:
    """Whether a file exists, and its folder may be read; unlike `Path.is_file`, this raises nothing."""
    return os.path.isfile(path)  # noqa: PTH113


def list_pages(kind: str) -> dict[str, Path]:
    """Return name to file, sorted by name; a page in `./recipes` hides a shipped one of the same name."""
    found: dict[str, Path] = {}
    for folder in reversed(_folders(kind)):
        if folder.is_dir():
            found.update({p.stem: p.resolve() for p in sorted(folder.iterdir()) if _is_page(p)})
    return dict(sorted(found.items()))


def find_shipped() -> Path:
    """Return the folder of the shipped recipes: inside the package in a wheel, beside it in a source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "shipped_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, in plain types only.

    Raises:
        UserError: The file cannot be read, is not valid YAML (names the line), or is no mapping.
    """
    content = copy.deepcopy(_parse(read_text(path), display_path(path), path.is_relative_to(find_shipped())))
    if content is None:
        raise UserError(f"{display_path(path)}: is empty; it must be a mapping, `key: value`")
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else "text or a single value"
        raise UserError(f"{display_path(path)}: is {kind}; it must be a mapping, `key: value`")
    return content


@functools.lru_cache(maxsize=256)  # a report reads a page once for each one that extends it
def _parse(text: str, where: str, is_shipped: bool) -> Any:
    if is_shipped:  # tests compare both parsers on these; a user's page must mean the same on every machine
        with contextlib.suppress(yaml.YAMLError, ValueError):
            return parse_quickly(text)
    return parse_yaml(text, where)


def read_header_comment(path: Path) -> str:
    """Return the comment that a file begins with, without '#'; "" where there is none."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), read_text(path).splitlines())
    return "\n".join(line[1:].removeprefix(" ").rstrip() for line in lines).strip("\n")


def load_dataset(ref: str | dict[str, Any], base: Path | None = None) -> DatasetSpec:
    """Return the data set that a name, a path or a mapping describes.

    Raises:
        UserError: There is no such page, or a key of it is wrong; names the dotted key.
    """
    if isinstance(ref, dict):
        where, raw = "data set", ref
    else:
        path = find("dataset", ref, base)
        where, raw = f"data set {display_path(path)}", read_yaml(path)
    check_keys(raw, DatasetSpec, where)
    return validate(DatasetSpec, raw, where)


def _in_words(kind: str) -> str:
    return "data set" if kind == "dataset" else kind


def _is_page(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _folders(kind: str, base: Path | None = None) -> list[Path]:
    """Return where names of a kind are looked for, first to last."""
    roots = [base] if base is not None else []
    return [root / FOLDERS[kind] for root in (*roots, Path.cwd() / "recipes", find_shipped())]


def _find_path(kind: str, ref: str, base: Path | None) -> Path:
    path, place = resolve_path(ref), ""
    for candidate in [path] if base is None else [base / path, path]:
        if is_file(candidate):
            return candidate.resolve()
    if base is not None and not path.is_absolute():
        place = f" (looked in {display_path(base.resolve())} and here)"
    what = "a folder, not a file" if is_folder(path) else "no such file"
    tail = f"; did you mean the {_in_words(kind)} '{path.stem}'?" if path.stem in list_pages(kind) else ""
    raise UserError(f"{_in_words(kind)} '{ref}': {what}{place}{tail}", f"msdet ls {kind}s")
