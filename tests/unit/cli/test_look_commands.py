"""ls, show, cp and validate: what a person sees, and what lies on disk afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from experiments.common.errors import UserError
from experiments.recipes.loading import compute_recipe_id, load_recipe
from msdet_cli.app import GROUPS
from msdet_cli.app import app as whole_app
from msdet_cli.commands import cp, ls, show, validate
from msdet_cli.completion import complete, complete_runs, complete_settings, complete_words

app = typer.Typer(rich_markup_mode=None)
for module in (ls, show, cp, validate):
    name = module.__name__.rpartition(".")[2]
    app.command(name)(getattr(module, name))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def typed(*words: str) -> str:
    """What a command prints to standard output."""
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    return caught.value


def page(text: str, name: str = "my.yaml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_ls_lists_every_kind_with_its_first_line():
    page("# A recipe [of mine]\nextends: retinanet-r50\n", "recipes/mine.yaml")
    text = typed("ls")
    for word in ("recipes", "retinanet-r50-rlo", "tiny", "coco", "table5", "A recipe [of mine]"):
        assert word in text
    only = typed("ls", "datasets")
    assert "shapes" in only
    assert "retinanet" not in only
    listed = json.loads(typed("ls", "--json"))
    assert list(listed) == ["recipes", "profiles", "datasets", "tables"]
    mine = next(entry for entry in listed["recipes"] if entry["name"] == "mine")
    assert mine == {
        "name": "mine",
        "about": "A recipe [of mine]",
        "path": str(Path("recipes/mine.yaml").resolve()),
    }
    assert "did you mean 'recipes'?" in refusal("ls", "recpes").message


def test_ls_tables_counts_rows_with_a_recipe():
    row = "{id: a, label: A, published: [1.0]}, {id: b, label: B, recipe: retinanet-r50}"
    page(
        f"name: mine\ntitle: My [own]\ncolumns: [AP]\nblocks: [{{rows: [{row}]}}]\n",
        "recipes/tables/mine.yaml",
    )
    page("name: bad\n", "recipes/tables/bad.yaml")
    lines = dict(line.split(maxsplit=1) for line in typed("ls", "tables").splitlines()[1:])
    assert lines["mine"] == "My [own] (2 rows, 1 with a recipe)"
    assert lines["table1"] == "Detectors with and without RLO, COCO val2017 (19 rows, all with a recipe)"
    assert lines["bad"] == "table recipes/tables/bad.yaml: title: is missing"
    entry = next(
        each for each in json.loads(typed("ls", "tables", "--json"))["tables"] if each["name"] == "mine"
    )
    assert (entry["rows"], entry["recipes"]) == (2, 1)


def test_ls_lists_other_files_beside_an_unreadable_one():
    page("", "recipes/bad.yaml").write_bytes(b"\xff\xfe\xfa")
    text = typed("ls", "recipes")
    assert "retinanet-r50" in text
    assert "not a text file" in text


def test_show_prints_a_valid_recipe():
    text = typed("show", "retinanet-r50-rlo", "-p", "tiny", "--set", "weighting.alpha=7", "--dataset", "coco")
    assert "\x1b" not in text
    shown = load_recipe(str(page(text)))
    options = {"sets": ["weighting.alpha=7"], "dataset": "coco"}
    assert shown == load_recipe("retinanet-r50-rlo", "tiny", **options)


def test_show_config_is_mmengines_own_syntax_and_nothing_else():
    text = typed("show", "retinanet-r50-rlo", "--config", "--set", "model.neck.num_outs=5")
    from mmengine import Config

    config = Config.fromstring(text, ".py")
    assert config["model"]["weighting"]["alpha"] == 100
    assert config["optim_wrapper"]["optimizer"]["lr"] == 0.005
    assert config["model"]["bbox_head"]["num_classes"] == 80  # no data here: the model's own


def test_validate_says_ok_with_the_identity():
    path = page("extends: retinanet-r50\nset: {model.backbone.base_channels: 32}\n")
    digest = compute_recipe_id(load_recipe(str(path)))
    assert typed("validate", "my.yaml").strip() == f"OK my, {digest}"
    assert json.loads(typed("validate", "my.yaml", "-p", "tiny", "--json")) == {
        "ok": True,
        "name": "my",
        "profile": "tiny",
        "id": compute_recipe_id(load_recipe("my.yaml", "tiny")),
    }


def test_validate_finds_a_wrong_key_for_mmengine():
    page("extends: retinanet-r50\nset: {model.backbone.dpeth: 18}\n")
    error = refusal("validate", "my.yaml")
    assert error.message.startswith("recipe my: set.model.backbone.dpeth")
    assert "did you mean 'depth'?" in error.message
    assert not Path("results").exists()


def test_cp_keeps_text_and_comments():
    assert "next: msdet show mine.yaml" in typed("cp", "retinanet-r50-rlo", "mine")
    shipped = Path(json.loads(typed("ls", "recipes", "--json"))["recipes"][0]["path"]).parent
    assert Path("mine.yaml").read_text() == (shipped / "retinanet-r50-rlo.yaml").read_text()
    assert compute_recipe_id(load_recipe("mine.yaml")) == compute_recipe_id(load_recipe("retinanet-r50-rlo"))


def test_cp_overwrites_only_with_force():
    page("keep: me\n", "mine.yaml")
    error = refusal("cp", "retinanet-r50", "mine.yaml")
    assert "exists already" in error.message
    assert error.hint.endswith("--force")
    assert Path("mine.yaml").read_text() == "keep: me\n"
    typed("cp", "retinanet-r50", "mine.yaml", "--force")
    assert load_recipe("mine.yaml").schedule.epochs == 12
    assert "is the recipe itself" in refusal("cp", "mine.yaml", "./mine.yaml", "--force").message


def test_cp_makes_no_folders():
    assert "folder a not found" in refusal("cp", "retinanet-r50", "a/b.yaml").message
    Path("a").mkdir()
    assert refusal("cp", "retinanet-r50", "a").hint == "name the file: a/retinanet-r50.yaml"
    assert list(Path("a").iterdir()) == []


def test_cp_keeps_what_references_mean():
    page("x = 1\n", "one/model.py")
    page(
        "name: d\nformat: coco\nroot: r\nsplits: {train: {annotations: a}, val: {annotations: b}}\n",
        "one/d.yaml",
    )
    page("extends: retinanet-r50\nschedule: {lr: 0.5}\n", "one/base.yaml")
    page(
        "# About\nextends: base   # a sibling\nmodel: 'model.py'\ndataset: ./d.yaml\n"
        "profiles:\n  tiny: {dataset: ./d.yaml}\n",
        "one/my.yaml",
    )
    Path("two").mkdir()
    typed("cp", "one/my.yaml", "two/my.yaml")
    text = Path("two/my.yaml").read_text()
    assert text.startswith("# About\n")
    assert "extends: ../one/base.yaml   # a sibling\n" in text
    for profile in (None, "tiny"):
        assert load_recipe("two/my.yaml", profile) == load_recipe("one/my.yaml", profile)
    assert load_recipe("two/my.yaml").schedule.lr == 0.5
    typed("cp", "one/my.yaml", "one/copy.yaml")
    assert Path("one/copy.yaml").read_text() == Path("one/my.yaml").read_text()


def test_cp_never_makes_a_recipe_extend_itself():
    typed("cp", "retinanet-r50-rlo", "retinanet-r50.yaml")
    assert compute_recipe_id(load_recipe("./retinanet-r50.yaml")) == compute_recipe_id(
        load_recipe("retinanet-r50-rlo")
    )
    page("extends: ./base.yaml\n")
    page("extends: retinanet-r50-avw\n", "base.yaml")
    assert "refers to this file" in refusal("cp", "my.yaml", "base.yaml", "--force").message


def test_names_are_completed():
    assert complete("recipe")("retinanet-r50-a") == ["retinanet-r50-augfpn", "retinanet-r50-avw"]
    assert complete("table")("f") == ["fig4"]
    assert complete("profile")("t") == ["tiny"]
    assert complete("recipe")("nothing") == []


def test_words_keys_and_runs_are_completed():
    assert complete_words(("bf16", "fp16"))("b") == ["bf16"]
    assert complete_words(("wandb", "mlflow"), ",")("wandb,m") == ["wandb,mlflow"]
    assert complete_settings("weighting.al") == ["weighting.alpha="]
    assert complete_settings("weighting.rule=r") == ["weighting.rule=rlo", "weighting.rule=random"]
    assert complete_settings("weighting.alpha=") == []
    for key in complete_settings(""):
        assert not key.startswith(("profile", "set=")), key
    for name in ("mine/0123abcd/seed0", "other/0123abcd/seed0"):
        page("{}", f"out/runs/{name}/record.json")
    context = SimpleNamespace(params={"results": Path("out")})
    assert complete_runs(context, "m") == ["mine/0123abcd/seed0"]


def test_each_command_is_in_a_group_with_its_whole_first_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(whole_app, ["--help"], prog_name="msdet").output
    assert max(map(len, text.splitlines())) <= 80
    groups = [block.splitlines() for block in text.split("\n\n") if block.partition("\n")[0].endswith(":")]
    assert [lines[0] for lines in groups] == ["Options:", *(f"{title}:" for title in GROUPS)]
    listed = dict(line.split(maxsplit=1) for lines in groups[1:] for line in lines[1:])
    commands = typer.main.get_command(whole_app).commands
    assert listed == {name: command.help.partition("\n")[0] for name, command in commands.items()}


def test_options_of_execution_stand_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(whole_app, ["run", "--help"], prog_name="msdet").output
    assert text.startswith("Usage: msdet run [OPTIONS] RECIPE...")
    first, _, execution = text.partition("Execution:")
    assert "--set" in first and "--gpus" not in first
    assert "--gpus" in execution and "--set" not in execution


@pytest.mark.parametrize("command", ["ls", "show", "cp", "validate"])
def test_help_gives_an_example(command: str):
    assert f"msdet {command}" in typed(command, "--help")
