"""The YAML of recipes and tables: plain types only, `1e-5` a number, no key twice, bounded size. No torch."""

from __future__ import annotations

import re
from typing import Any

import yaml

from experiments.common.errors import UserError

MAX_YAML_VALUES = 100_000  # of one page, counted as if each alias were written out
MAX_DIGITS = 80  # of a whole number, in any base


def parse_yaml(text: str, where: str) -> Any:
    """Return the content of one YAML document.

    Args:
        where: Begins the message of an error: a file, say.

    Raises:
        UserError: It is not valid YAML; names the line where there is one.
    """
    try:
        return yaml.load(text, PlainLoader)  # a SafeLoader: plain types only, nothing is ever called
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise UserError(f"{where}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a control character
        raise UserError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None


MAX_QUICK_NODES = 5000  # lists and mappings that may be nested


def parse_quickly(text: str) -> Any:
    """Return what `parse_yaml` does in a seventh of the time, where PyYAML has its C parser.

    Raises:
        yaml.YAMLError, ValueError: It is not valid YAML; `parse_yaml` says where.
    """
    if sum(map(text.count, ("[", "{", "- ", "? "))) > MAX_QUICK_NODES:
        raise ValueError("too much for the C parser, which crashes where a page is nested too deeply")
    return yaml.load(text, QuickLoader)


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the values below a node, itself included, as if each alias were written out; long text counts more."""
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value) // 100
    if id(node) not in sizes:
        sizes[id(node)] = 0  # of a node within itself, which the constructor refuses
        nodes = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
        sizes[id(node)] = 1 + sum(_expanded_size(part, sizes) for part in nodes)
    return sizes[id(node)]


class _Bounded:
    """Refuses a page of few lines whose nested aliases or merges (`<<`) stand for billions of values."""

    def construct_document(self, node: yaml.Node) -> Any:
        if _expanded_size(node, {}) > MAX_YAML_VALUES:
            raise _mistake(f"it holds more than {MAX_YAML_VALUES} values, aliases written out", node)
        try:
            return super().construct_document(node)  # type: ignore[misc]
        except (LookupError, AttributeError, TypeError, ValueError):
            raise _mistake("a value does not fit its tag, as in `!!bool x`", node) from None


class PlainLoader(_Bounded, yaml.SafeLoader):
    """YAML as people mean it: `1e-5` is a number, a date is text, a key given twice is a mistake."""


class QuickLoader(_Bounded, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PlainLoader on the parser in C, which words mistakes in another way and may place them elsewhere."""


class PlainDumper(yaml.SafeDumper):
    """Writes what PlainLoader reads back equal: quotes by the same rules, short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write shared values out, each time they occur."""
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


def _read_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = loader.construct_scalar(node)
    if "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
        raise _mistake("a text holds NUL or half of a surrogate pair", node)
    return str(text)


def dump_yaml(content: Any) -> str:
    """Return plain values as a page that `parse_yaml` reads back equal, keys in their order."""
    return yaml.dump(
        content, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )


def _read_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    number = loader.construct_yaml_int(node) if len(node.value) <= MAX_DIGITS else None  # type: ignore[no-untyped-call]
    if number is None or abs(number) >= 2**63:
        raise _mistake(f"a whole number of {len(node.value)} digits; at most 18 are allowed", node)
    return int(number)


def _read_list(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


def _write_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    is_short = all(not isinstance(item, (dict, list)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_short or None)


_READERS: dict[str, Any] = {"map": _read_mapping, "seq": _read_list, "str": _read_text, "int": _read_integer}
for _name, _read in _READERS.items():
    PlainLoader.add_constructor(f"tag:yaml.org,2002:{_name}", _read)
for _name in ("binary", "timestamp", "omap", "pairs", "set"):  # their values are no plain types
    del PlainLoader.yaml_constructors[f"tag:yaml.org,2002:{_name}"]
PlainDumper.add_representer(list, _write_list)
QuickLoader.yaml_constructors = PlainLoader.yaml_constructors
QuickLoader.yaml_implicit_resolvers = PlainLoader.yaml_implicit_resolvers
