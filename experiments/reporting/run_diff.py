"""The differences between two runs: recipe, data, code, environment, execution, result."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.common.config_text import flatten_keys, read_config
from experiments.common.errors import UserError
from experiments.recipes import catalogue
from experiments.recipes import loading as recipes
from experiments.reporting.collect import describe_execution
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder

ABSENT = None  # what a side has where it does not have the key; JSON has no other word for it


@dataclass(frozen=True)
class Change:
    """One key in which two runs differ.

    Attributes:
        remark: The difference of two numbers, or what a reader should know of it.
    """

    key: str
    old: Any
    new: Any
    remark: str = ""


def run_diff(one: RunFolder, two: RunFolder) -> dict[str, list[Change]]:
    """Return changes by section, only of sections that have any.

    `config` is looked at where the recipes are the same, for it follows from them otherwise. Places (the run's own
    folder, the data's) are not compared in it.

    Raises:
        UserError: A record cannot be read.
    """
    records = one.read(), two.read()
    pages = _recipes(one, two)
    recipe = _changes(*pages)
    sections = {"recipe": _changes(*({"seed": record.seed} for record in records)) + recipe}
    if all(change.key == "name" for change in recipe):
        sections["config"] = _changes(_config(one, records[0]), _config(two, records[1]))
    sections["data"] = _changes(*(_data(record) for record in records))
    sections["code"] = _code(*records)
    sections["environment"] = _changes(*(_environment(record) for record in records))
    sections["execution"] = _changes(*(_execution(record) for record in records))
    sections["result"] = _result(*records, one, two)
    return {name: changes for name, changes in sections.items() if changes}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    one, two = flatten_keys(old), flatten_keys(new)
    return [
        Change(key, one.get(key, ABSENT), two.get(key, ABSENT))
        for key in {**one, **two}
        if (key in one) != (key in two) or not _equal(one[key], two[key])
    ]


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one) and math.isnan(two):
        return True
    return one == two


def _recipes(one: RunFolder, two: RunFolder) -> list[dict[str, Any]]:
    """Return both recipes, validated where possible, so that keys a page lacks have defaults."""
    try:
        return [recipes.load_recipe(str(run.recipe.resolve())).model_dump() for run in (one, two)]
    except UserError:
        return [catalogue.read_yaml(run.recipe) for run in (one, two)]


def _config(run: RunFolder, record: Record) -> dict[str, Any]:
    if not run.config.is_file():  # it never came to load data
        return {}
    config = flatten_keys(read_config(run.config))
    if config.get("randomness.seed") == record.seed:
        del config["randomness.seed"]
    places = {str(config.pop("work_dir", "")): "RUN", str(record.dataset.get("root") or ""): "DATA"}
    return {key: _without(places, value) for key, value in config.items()}


def _without(places: dict[str, str], value: Any) -> Any:
    if isinstance(value, str):
        for place, name in places.items():
            value = value.replace(place, name) if place else value
    return value


def _data(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.dataset.items() if value is not None}


def _code(one: Record, two: Record) -> list[Change]:
    """Return changes of the code, with a remark where the Python source is the same."""
    changes = _changes(_code_of(one), _code_of(two))
    same = one.environment.get("source") is not None and one.environment["source"] == two.environment.get(
        "source"
    )
    remark = "the same Python code under experiments/" if same else ""
    return [Change(c.key, c.old, c.new, remark if c.key in ("commit", "patch") else "") for c in changes]


def _code_of(record: Record) -> dict[str, Any]:
    git = record.git or {}
    found: dict[str, Any] = {key: git[key] for key in ("commit", "dirty") if key in git}
    if git.get("patch") or git.get("patch_sha256"):
        found["patch"] = describe_patch(git)
    if git.get("untracked"):
        found["untracked"] = list(git["untracked"])
    found |= {
        key: record.environment[key] for key in ("source", "own_modules") if record.environment.get(key)
    }
    if record.imported is not None:
        found["imported from"] = record.imported.get("source")
    earlier = [_earlier_in_words(entry) for entry in record.earlier]
    return found | ({"earlier attempts": earlier} if earlier else {})


def describe_patch(git: Mapping[str, Any]) -> str:
    """Return `1a2b3c4d (a.py, b.py)`: a digest, and the files that the patch touches."""
    patch = git.get("patch") or ""
    digest = git.get("patch_sha256") or hashlib.sha256(patch.encode()).hexdigest()
    files = list(dict.fromkeys(re.findall(r"^diff --git .* b/(.*)$", patch, re.MULTILINE)))
    touched = ", ".join(files) if files else f"{git.get('patch_characters')} characters, not kept"
    return f"{digest[:8]} ({touched})"


def _earlier_in_words(entry: Mapping[str, Any]) -> str:
    environment, git = entry.get("environment") or {}, entry.get("git") or {}
    devices = ", ".join(environment.get("gpus") or ["cpu"])
    commit = str(git.get("commit") or "no commit")[:10] + (" with changes" if git.get("dirty") else "")
    return f"up to attempt {entry.get('attempts')}: {environment.get('host')}, {devices}, {commit}"


def _environment(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.environment.items() if key not in ("source", "own_modules")}


def _execution(record: Record) -> dict[str, Any]:
    last = record.attempts[-1] if record.attempts else None
    found: dict[str, Any] = {
        "run as": describe_execution(record.attempts) or None,
        "device": last.device if last else None,
        "halved batch": record.launch.reduced,
        "attempts": len(record.attempts),
        "command": " ".join(record.command),
    }
    return found


def _result(one: Record, two: Record, first: RunFolder, second: RunFolder) -> list[Change]:
    about = [
        {"state": run.state(record), "iterations": record.iterations, "notes": record.notes}
        for run, record in ((first, one), (second, two))
    ]
    changes = _changes(*about)
    for change in _changes(one.metrics, two.metrics):
        known = change.old is not ABSENT and change.new is not ABSENT
        changes.append(
            Change(change.key, change.old, change.new, f"{change.new - change.old:+.2f}" if known else "")
        )
    return changes
