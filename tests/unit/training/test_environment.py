"""What a record says of the code and the machine, against repositories made here."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from experiments.recipes.loading import load_recipe
from experiments.runs.record import Attempt, Record
from experiments.training import environment
from experiments.training.environment import hash_own_modules, hash_source, read_git_state, set_origin


def git(root: Path, *words: str, text: str = "") -> str:
    command = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e@x", *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "experiments").mkdir(parents=True)
    (root / "experiments" / "rule.py").write_text("alpha = 100\n")
    (root / "README.md").write_text("read me\n")
    (root / ".gitignore").write_text("*.pyc\n")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "first")
    return root


def test_a_clean_checkout_is_its_commit(checkout: Path):
    commit = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "README.md").write_text("changed\n")  # computes nothing
    (checkout / "notes.txt").write_text("untracked, elsewhere\n")
    (checkout / "experiments" / "rule.pyc").write_bytes(b"ignored")
    assert read_git_state(checkout) == {"commit": commit, "dirty": False, "patch": None}


def test_the_patch_gives_back_changed_and_new_files(checkout: Path, tmp_path: Path):
    (checkout / "experiments" / "rule.py").write_text("alpha = 5\n")
    (checkout / "experiments" / "größe.py").write_text("epsilon = 'ε'\n")
    (checkout / "experiments" / "table.bin").write_bytes(bytes(range(256)))
    state = read_git_state(checkout)
    assert state is not None and state["dirty"]
    assert state["untracked"] == {"experiments/größe.py": 15, "experiments/table.bin": 256}
    assert state["patch_sha256"] == hashlib.sha256(state["patch"].encode()).hexdigest()
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(checkout), str(other))
    git(other, "checkout", "-q", state["commit"])
    git(other, "apply", "-", text=state["patch"])
    for name in ("rule.py", "größe.py", "table.bin"):
        assert (other / "experiments" / name).read_bytes() == (checkout / "experiments" / name).read_bytes()


def test_a_long_patch_is_told_by_its_digest_and_a_large_new_file_by_its_name(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(environment, "MAX_PATCH_CHARACTERS", 500)
    (checkout / "experiments" / "weights.py").write_text("x" * 501)
    state = read_git_state(checkout)
    assert state is not None
    assert (state["dirty"], state["patch"]) == (True, None)
    assert state["untracked"] == {"experiments/weights.py": 501}
    (checkout / "experiments" / "rule.py").write_text("beta = 1\n" * 100)
    first = read_git_state(checkout)
    (checkout / "experiments" / "rule.py").write_text("beta = 2\n" * 100)
    second = read_git_state(checkout)
    assert first is not None and second is not None
    assert first["patch"] is second["patch"] is None
    assert first["patch_characters"] == second["patch_characters"] > 500
    assert first["patch_sha256"] != second["patch_sha256"]


def test_in_a_hook_of_another_repository_this_one_is_described(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And no program that its settings name is run."""
    commit, other = git(checkout, "rev-parse", "HEAD").strip(), tmp_path / "other"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    program.chmod(0o755)
    for key in ("core.fsmonitor", "diff.odd.textconv", "diff.odd.command", "filter.Odd.clean"):
        git(checkout, "config", key, str(program))
    git(checkout, "config", "filter.Odd.required", "true")
    (checkout / ".git" / "info" / "attributes").write_text("*.py diff=odd filter=Odd\n")
    (checkout / "experiments" / "rule.py").write_text("alpha = 5\n")
    git(tmp_path, "init", "-q", str(other))
    git(other, "commit", "-q", "--allow-empty", "-m", "another")
    (tmp_path / "ran").unlink(missing_ok=True)
    for name, place in (
        ("GIT_DIR", other / ".git"),
        ("GIT_WORK_TREE", other),
        ("GIT_INDEX_FILE", other / "i"),
    ):
        monkeypatch.setenv(name, str(place))
    state = read_git_state(checkout)
    assert state is not None
    assert state["commit"] == commit and "+alpha = 5" in state["patch"]
    assert not (tmp_path / "ran").exists()


def test_outside_a_checkout_the_source_still_has_a_digest(checkout: Path, tmp_path: Path):
    assert read_git_state(tmp_path) is None
    before = hash_source(checkout / "experiments")
    (checkout / "README.md").write_text("changed\n")
    assert hash_source(checkout / "experiments") == before
    (checkout / "experiments" / "rule.py").write_text("alpha = 5\n")
    assert hash_source(checkout / "experiments") != before


def test_the_users_own_modules_are_told_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_pipeline_xyz.py").write_text("raise RuntimeError('not run for its digest')\n")
    (tmp_path / "own_rule_xyz.py").write_text("y = 2\n")
    recipe = load_recipe("retinanet-r50").model_copy(
        update={"imports": ["own_pipeline_xyz", "absent_xyz"], "weighting": {"rule": "own_rule_xyz:Mine"}}
    )
    expected = {
        name: hashlib.sha256((tmp_path / f"{name}.py").read_bytes()).hexdigest()
        for name in ("own_pipeline_xyz", "own_rule_xyz")
    }
    assert hash_own_modules(recipe) == {"absent_xyz": None, **expected}
    assert hash_own_modules(load_recipe("retinanet-r50-rlo")) == {}


def test_what_earlier_attempts_ran_on_is_kept():
    record = Record(recipe="r", recipe_id="1" * 8, config_hash="2" * 8, seed=0)

    def attempt(host: str, commit: str) -> None:
        record.attempts.append(Attempt(started="", host=host, pid=1))
        set_origin(record, {"host": host}, {"commit": commit})

    attempt("a", "c1")
    attempt("a", "c1")
    assert record.earlier == []
    attempt("b", "c1")
    attempt("b", "c2")
    assert (record.environment, record.git) == ({"host": "b"}, {"commit": "c2"})
    assert [(e["attempts"], e["environment"]["host"], e["git"]["commit"]) for e in record.earlier] == [
        (2, "a", "c1"),
        (3, "b", "c1"),
    ]


def test_the_instructions_that_a_cpu_rounds_with_are_told():
    import torch

    assert f"CPU capability usage: {environment.describe()['cpu_capability']}" in torch.__config__.show()
