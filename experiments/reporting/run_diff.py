"""The differences between two runs: recipe, data, code, environment, execution, result."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from experiments.common.config_text import flatten_keys, read_config
from experiments.common.errors import UserError
from experiments.recipes import catalogue
from experiments.recipes import loading as recipes
from experiments.reporting.collect import describe_execution
from experiments.runs.record import Record
from experiments.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Change:
    """One key in which two runs differ."""

    key: str
    old: Any  # None where the run does not have the key
    new: Any
    remark: str = ""  # the difference of two numbers, or what a reader should know of it


def run_diff(one: RunFolder, two: RunFolder) -> dict[str, list[Change]]:
    """Return changes by section, only of sections that have any.

    `config` is looked at where the recipes are the same, for it follows from them otherwise. Places (the run's own
    folder, the data's) are not compared in it.

    Raises:
        UserError: A record cannot be read.
    """
    old, new = one.read(), two.read()
    recipe = _changes(*_recipes(one, two))
    sections = {"recipe": _changes({"seed": old.seed}, {"seed": new.seed}) + recipe}
    if all(change.key == "name" for change in recipe):
        sections["config"] = _changes(_config(one, old), _config(two, new))
    facts, others = _facts(one, old), _facts(two, new)
    sections |= {name: _changes(facts[name], others[name]) for name in facts}
    source = old.environment.get("source")
    if source is not None and source == new.environment.get("source"):
        remark = "the same Python code under experiments/"
        sections["code"] = [
            replace(c, remark=remark) if c.key in ("commit", "patch") else c for c in sections["code"]
        ]
    for change in _changes(old.metrics, new.metrics):
        is_known = change.old is not None and change.new is not None
        remark = f"{change.new - change.old:+.2f}" if is_known else ""
        sections["result"].append(replace(change, remark=remark))
    return {name: changes for name, changes in sections.items() if changes}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    one, two = flatten_keys(old), flatten_keys(new)
    return [
        Change(key, one.get(key), two.get(key))
        for key in {**one, **two}
        if (key in one) != (key in two) or not _equal(one[key], two[key])
    ]


def _equal(one: Any, two: Any) -> bool:
    return bool(one == two or (one != one and two != two))  # NaN is the value that does not equal itself


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
    for place, name in ((config.pop("work_dir", None), "RUN"), (record.dataset.get("root"), "DATA")):
        texts = {key: value for key, value in config.items() if place and isinstance(value, str)}
        config |= {key: text.replace(str(place), name) for key, text in texts.items()}
    return config


def _facts(run: RunFolder, record: Record) -> dict[str, dict[str, Any]]:
    """Return what is compared of each run beside recipe, config and metrics, by section."""
    last = record.attempts[-1] if record.attempts else None
    of_code = ("source", "own_modules")
    return {
        "data": {key: value for key, value in record.dataset.items() if value is not None},
        "code": _code(record),
        "environment": {key: value for key, value in record.environment.items() if key not in of_code},
        "execution": {
            "run as": describe_execution(record.attempts) or None,
            "device": last.device if last else None,
            "halved batch": record.launch.reduced,
            "attempts": len(record.attempts),
            "command": " ".join(record.command),
        },
        "result": {"state": run.state(record), "iterations": record.iterations, "notes": record.notes},
    }


def _code(record: Record) -> dict[str, Any]:
    git, environment = record.git or {}, record.environment
    found: dict[str, Any] = {key: git[key] for key in ("commit", "dirty") if key in git}
    if git.get("patch") or git.get("patch_sha256"):
        found["patch"] = _describe_patch(git)
    if git.get("untracked"):
        found["untracked"] = list(git["untracked"])
    found |= {key: environment[key] for key in ("source", "own_modules") if environment.get(key)}
    if record.imported is not None:
        found["imported from"] = record.imported.get("source")
    if record.earlier:
        found["earlier attempts"] = list(map(_describe_earlier, record.earlier))
    return found


def _describe_patch(git: Mapping[str, Any]) -> str:
    """Return `1a2b3c4d (a.py, b.py)`: a digest, and the files that the patch touches."""
    patch = git.get("patch") or ""
    digest = git.get("patch_sha256") or hashlib.sha256(patch.encode()).hexdigest()
    files = list(dict.fromkeys(re.findall(r"^diff --git .* b/(.*)$", patch, re.MULTILINE)))
    touched = ", ".join(files) if files else f"{git.get('patch_characters')} characters, not kept"
    return f"{digest[:8]} ({touched})"


def _describe_earlier(entry: Mapping[str, Any]) -> str:
    environment, git = entry.get("environment") or {}, entry.get("git") or {}
    devices = ", ".join(environment.get("gpus") or ["cpu"])
    commit = str(git.get("commit") or "no commit")[:10] + (" with changes" if git.get("dirty") else "")
    return f"up to attempt {entry.get('attempts')}: {environment.get('host')}, {devices}, {commit}"
