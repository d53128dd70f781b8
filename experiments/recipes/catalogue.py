"""Finds the project's YAML files by name or path, and reads them safely. No torch."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
from pathlib import Path
from typing import Any

import yaml

from experiments.common.checking import check_keys, shown_value, validate
from experiments.common.errors import UserError, did_you_mean
from experiments.common.files import display_path, read_text
from experiments.data.spec import DatasetSpec

FOLDERS = {"recipe": "", "profile": "profiles", "dataset": "datasets", "table": "tables"}
_SUFFIXES = (".yaml", ".yml")
_SPOKEN = {"dataset": "data set"}  # the kinds as messages say them


def find(kind: str, ref: str, base: Path | None = None) -> Path:
    """The file that `ref` means.

    A path (it holds a separator, or ends in .yaml or .yml) is looked for below `base` and then as it is.
    A name is looked for below `base`, in `./recipes`, and among the recipes shipped with the project.

    Args:
        kind: One of FOLDERS.
        ref: What a person wrote.
        base: The folder of the file that `ref` stands in, where it stands in one.

    Raises:
        UserError: Nothing found; offers the nearest name.
    """
    if not isinstance(ref, str) or not ref.strip():
        raise UserError(f"{_spoken(kind)} {ref!r} is not a name or a path", f"msdet ls {kind}s")
    if is_path(ref):
        return _find_path(kind, ref, base)
    for folder in _folders(kind, base):
        for suffix in _SUFFIXES:
            if is_file(folder / (ref + suffix)):
                return (folder / (ref + suffix)).resolve()
    raise UserError(
        f"{_spoken(kind)} '{ref}' not found; {did_you_mean(ref, names(kind))}", f"msdet ls {kind}s"
    )


def is_path(ref: str) -> bool:
    """Whether `ref` is written as a path to a YAML file rather than as a name."""
    return "/" in ref or os.sep in ref or ref.endswith(_SUFFIXES)


def resolve_path(ref: str, base: Path | None = None) -> Path:
    """The path that `ref` is, counted from `base` where it is relative; `~` is the home folder."""
    try:
        path = Path(ref).expanduser()
    except RuntimeError:  # nobody of that name has a home here
        path = Path(ref)
    return path if base is None else base / path


def is_file(path: Path) -> bool:
    """Whether a file is there, as far as one may look."""
    try:
        return path.is_file()
    except OSError:
        return False


def names(kind: str) -> dict[str, Path]:
    """All that can be named, sorted; a page in `./recipes` hides a shipped one of the same name."""
    found: dict[str, Path] = {}
    for folder in reversed(_folders(kind)):
        if folder.is_dir():
            found.update({p.stem: p.resolve() for p in sorted(folder.iterdir()) if _is_page(p)})
    return dict(sorted(found.items()))


def shipped() -> Path:
    """The recipes that come with the project: inside the package in a wheel, beside it in a source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "shipped_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, in plain types only.

    Raises:
        UserError: The file cannot be read, is not YAML (with the line), is empty or not a mapping, or has a
            key twice.
    """
    content = copy.deepcopy(_parsed(read_text(path), display_path(path), path.is_relative_to(shipped())))
    if content is None:
        raise UserError(f"{display_path(path)}: is empty; it must be a mapping, `key: value`")
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"the single value {shown_value(content)}"
        raise UserError(f"{display_path(path)}: is {kind}; it must be a mapping, `key: value`")
    return content


def parse_yaml(text: str, where: str) -> Any:
    """What one YAML document holds; `where` begins the message where it holds a mistake."""
    try:
        return yaml.load(text, PlainLoader)  # a SafeLoader: plain types only, nothing is ever called
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # a control character; a number too long to read
        raise UserError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{where}: not valid YAML: nested too deeply") from None


def parse_quickly(text: str) -> Any:
    """The same in a seventh of the time where PyYAML has its C parser: for thousands of pages.

    Raises:
        yaml.YAMLError, ValueError: It is no YAML; `parse_yaml` says where.
    """
    return yaml.load(text, QuickLoader)


# A report reads the page that others extend once for each of them, and parsing is what takes the time.
@functools.lru_cache(maxsize=256)
def _parsed(text: str, where: str, is_shipped: bool) -> Any:
    """Only of the shipped pages is it known that both parsers read the same; a user's must mean the same everywhere."""
    if is_shipped:
        with contextlib.suppress(yaml.YAMLError, ValueError):
            return parse_quickly(text)
    return parse_yaml(text, where)


def header_comment(path: Path) -> str:
    """The comment that a file begins with, without the '#'; empty where there is none."""
    lines = []
    for line in read_text(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return "\n".join(lines).strip("\n")


def load_dataset(ref: str | dict[str, Any], base: Path | None = None) -> DatasetSpec:
    """The data set that a name, a path or a mapping describes.

    Raises:
        UserError: Not found, or the description is wrong (dotted path to the key, nearest valid name).
    """
    if isinstance(ref, dict):
        where, raw = "data set", ref
    else:
        path = find("dataset", ref, base)
        where, raw = f"data set {display_path(path)}", read_yaml(path)
    check_keys(raw, DatasetSpec, where)
    return validate(DatasetSpec, raw, where)


def _spoken(kind: str) -> str:
    return _SPOKEN.get(kind, kind)


def _is_page(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _folders(kind: str, base: Path | None = None) -> list[Path]:
    """Where names of this kind are looked for, first to last."""
    roots = [base] if base is not None else []
    return [root / FOLDERS[kind] for root in (*roots, Path.cwd() / "recipes", shipped())]


def _find_path(kind: str, ref: str, base: Path | None) -> Path:
    path = resolve_path(ref)
    for candidate in ([] if base is None else [base / path]) + [path]:
        if is_file(candidate):
            return candidate.resolve()
    looked_beside = base is not None and not path.is_absolute()
    place = (
        f" (looked in {display_path(base.resolve())} and here)" if base is not None and looked_beside else ""
    )
    what = "a folder, not a file" if path.is_dir() else "no such file"
    tail = f"; did you mean the {_spoken(kind)} '{path.stem}'?" if path.stem in names(kind) else ""
    raise UserError(f"{_spoken(kind)} '{ref}': {what}{place}{tail}", f"msdet ls {kind}s")


class PlainLoader(yaml.SafeLoader):
    """YAML as people mean it: `1e-5` is a number, a date is text, a key given twice is a mistake."""


class QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PlainLoader on the parser in C, which words a mistake in another way, and may see it elsewhere."""


class PlainDumper(yaml.SafeDumper):
    """Writes what PlainLoader reads back equal: quotes by the same rules, short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_REPLACED = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
for _class in (PlainLoader, PlainDumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _read_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    seen = set()
    for key, _ in node.value:
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise _mistake("a key is not text; put it in quotes", key)
        if key.value in seen:
            raise _mistake(f"the key '{key.value}' is given twice", key)
        seen.add(key.value)
    return dict(loader.construct_mapping(node, deep=True))  # type: ignore[arg-type]  # deep: a mapping within itself is then an error


def _mistake(message: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def _write_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    short = all(not isinstance(item, (dict, list)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=short or None)


def _read_list(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


PlainLoader.add_constructor("tag:yaml.org,2002:map", _read_mapping)
PlainLoader.add_constructor("tag:yaml.org,2002:seq", _read_list)
PlainDumper.add_representer(list, _write_list)
QuickLoader.yaml_constructors = PlainLoader.yaml_constructors
QuickLoader.yaml_implicit_resolvers = PlainLoader.yaml_implicit_resolvers
