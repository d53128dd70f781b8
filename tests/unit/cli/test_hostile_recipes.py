"""Recipes made to break the reader: one short line and exit code 2 within a second, before any model is built."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from msdet_cli import app  # noqa: F401  (imported before anything is timed)
from msdet_cli import main as command_line

MAX_LINE_CHARS = 600
LONG = "n" * 100_000


def growing_aliases(levels: int, key: str = "+x") -> str:
    """Keys under `set` whose values stand for 9 ** levels numbers."""
    lines = [f"  {key}.a0: &a0 [{', '.join('123456789')}]"]
    lines += [f"  {key}.a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "set:\n" + "\n".join(lines)


PAGES = {
    "aliases that grow past all memory": growing_aliases(12),
    "aliases that grow to 60,000 values": growing_aliases(5),
    "an alias of a long text": f"set:\n  +a.b: &t {'x' * 5000}\n  +a.c: [{', '.join(['*t'] * 20_000)}]",
    "aliases in options": "weighting: {rule: 'm:R', a: &a [" + "1, " * 200 + "1], b: &b ["
                          + ", ".join(["*a"] * 300) + "]}",
    "lists in lists": "set: {+a.b: " + "[" * 400 + "]" * 400 + "}",
    "a long decimal number": f"schedule: {{images_per_gpu: {'1' * 5000}}}",
    "a long hexadecimal number": f"set: {{model.backbone.depth: 0x{'f' * 50_000}}}",
    "a long number in base 60": f"schedule: {{gpus: {':'.join(['59'] * 5000)}}}",
    "more than 64 bits": f"image_size: [1{'0' * 20}, 5]",
    "NUL in a name": 'name: "a\\0b"',
    "NUL in a model": 'model: "a\\0b.py"',
    "NUL in a folder": 'dataset: {root: "a\\0b"}',
    "NUL in extends": 'extends: "a\\0b"',
    "NUL in weights": 'init_from: "a\\0b"',
    "NUL itself": "name: a\0b",
    "half a surrogate pair": 'model: "\\ud800.py"',
    "a long name": f"name: {LONG}",
    "a name longer than a folder's may be": f"name: {'n' * 300}",
    "a long recipe": f"extends: {LONG}",
    "a long path": f"extends: ./{LONG}.yaml",
    "a long model": f"model: {LONG}.py",
    "a long data set": f"dataset: {LONG}",
    "a long weights file": f"init_from: {LONG}",
    "a long key": f"{LONG}: 1",
    "a bool that is none": "amp: !!bool x",
    "an integer that is none": "schedule: {lr: !!int x}",
    "a float that is none": "schedule: {lr: !!float x}",
    "a date that is none": "amp: !!timestamp x",
    "bytes": "set: {model.a: !!binary aGk=}",
    "a set": "set: !!set {a, b}",
    "pairs": "imports: !!omap [a: 1]",
    "a rule that is a list": "weighting: {rule: [rlo]}",
    "a level that is a mapping": "weighting: {where: {a: b}}",
}  # fmt: skip


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str, *words: str) -> tuple[int, float]:
    """Type `msdet run` on a page in an empty folder; returns the exit code and the processor's seconds."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    first = "" if "extends:" in text else "extends: retinanet-r50\n"
    (folder / "mine.yaml").write_text(f"{first}{text}\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["msdet", "run", "mine.yaml", *words])
    begun = time.process_time()
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return ended.value.code, time.process_time() - begun  # type: ignore[return-value]


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_hostile_recipe_is_one_short_line(monkeypatch, capsys, tmp_path, text):
    code, took = run(monkeypatch, tmp_path, text, "-p", "tiny")
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert max(map(len, lines)) < MAX_LINE_CHARS
    assert took < 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("model: 5", "set.model: 5 is not allowed: a mapping"),
        ("model.type: 3", "set.model.type: 3 is not allowed: the name of a class"),
        ("model.backbone.type: [a]", "set.model.backbone.type: ['a'] is not allowed"),
        ("model.backbone: {type: 3}", "set.model.backbone.type: 3 is not allowed"),
        ("model.backbone: {type: Nothing}", "Nothing is not in the mmdet::model registry"),
        ("model.backbone.depth: 19", "invalid depth 19"),
        ("model.bbox_head: null", "the config cannot be built"),
        ("model.neck: []", "set.model.neck: [] is not allowed"),
        ("optim_wrapper: null", "set.optim_wrapper: None is not allowed: a mapping"),
        ("optim_wrapper.optimizer: {type: 3}", "set.optim_wrapper.optimizer.type: 3"),
        ("optim_wrapper.accumulative_counts: x", "accumulative_counts: x is not allowed"),
        ("train_dataloader.dataset: 5", "set.train_dataloader.dataset: 5 is not allowed"),
        ("val_evaluator: null", "set.val_evaluator: None is not allowed"),
        ("custom_hooks: [{}]", "no config can be built of its model, imports and set: KeyError"),
        ("param_scheduler: 5", "set.param_scheduler: 5 is not allowed: a list"),
    ],
)
def test_values_that_no_config_has_are_refused_before_a_run_begins(monkeypatch, capsys, tmp_path, line, said):
    """They need the model's config, and so the import of MMDetection, which takes longer the first time."""
    code, _ = run(monkeypatch, tmp_path, f"set: {{{line}}}", "--dry-run")
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert said in lines[0]
    assert len(lines) <= 2
    assert max(map(len, lines)) < MAX_LINE_CHARS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('mine')", "RuntimeError: mine"),
        ("import no_such_package", "ModuleNotFoundError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused(monkeypatch, capsys, tmp_path, text, said):
    (tmp_path / "own_broken.py").write_text(text + "\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, _ = run(monkeypatch, tmp_path, "imports: [own_broken]", "-p", "tiny", "--dry-run")
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_chain_of_a_thousand_recipes_is_refused(monkeypatch, capsys, tmp_path):
    for number in range(1000):
        (tmp_path / f"r{number}.yaml").write_text(f"extends: ./r{number + 1}.yaml\n")
    code, _ = run(monkeypatch, tmp_path, "extends: ./r0.yaml", "-p", "tiny")
    assert code == 2
    assert "more than 50 others" in capsys.readouterr().err


def test_text_of_a_file_that_is_no_recipe_is_not_printed(monkeypatch, capsys, tmp_path):
    code, _ = run(monkeypatch, tmp_path, "# extends:\nsecret words of mine", "-p", "tiny")
    said = capsys.readouterr().err
    assert code == 2
    assert "secret" not in said
    assert "it must be a mapping" in said
