"""Recipes: what the shipped ones say, how layers build on one another, and what identifies an experiment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.common.errors import UserError
from experiments.recipes.loading import (
    compute_config_hash,
    compute_recipe_id,
    describe_identity,
    dump,
    load_recipe,
)
from experiments.recipes.schema import Recipe

# Section "Training settings" of the paper and its defaults of RLO.
RLO = {
    "rule": "rlo",
    "alpha": 100,
    "n": 2,
    "amplification": [1.5, 1.0],
    "gamma": 0.01,
    "beta": [0.1, 0.9],
    "actions": ["variance", "smallest", "largest", "uniform"],
    "epsilon": 1e-5,
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def page(text: str, name: str = "my.yaml") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return name


def child(text: str, of: str = "retinanet-r50-rlo", name: str = "my.yaml") -> str:
    return page(f"extends: {of}\n{text}", name)


def refusal(*arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(*arguments, **options)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2
    return caught.value.message


# ------------------------------------------------------------------------------------ shipped recipes


def test_the_papers_settings():
    base, avw, rlo = (load_recipe(f"retinanet-r50{suffix}") for suffix in ("", "-avw", "-rlo"))
    for recipe in (base, avw, rlo):
        schedule = recipe.schedule
        assert (schedule.epochs, schedule.lr, schedule.milestones) == (12, 0.005, [8, 11])
        assert (schedule.gpus, schedule.images_per_gpu) == (4, 2)
        assert (schedule.optimizer, schedule.decay, schedule.warmup) == ("sgd", "step", None)
        assert (recipe.dataset.name, recipe.profile, recipe.set) == ("coco", None, {})
        assert recipe.model == "mmdet:retinanet/retinanet_r50_fpn_1x_coco.py"
    assert base.weighting["rule"] == "uniform"
    assert avw.weighting == {"rule": "avw", **{k: RLO[k] for k in ("alpha", "n", "amplification", "epsilon")}}
    assert rlo.weighting == RLO
    assert [r.name for r in (base, avw, rlo)] == ["retinanet-r50", "retinanet-r50-avw", "retinanet-r50-rlo"]


@pytest.mark.parametrize("profile", [None, "tiny"])
@pytest.mark.parametrize("name", ["retinanet-r50", "retinanet-r50-avw", "retinanet-r50-rlo"])
def test_a_resolved_recipe_loads_back_equal_by_its_path(name: str, profile: str | None):
    recipe = load_recipe(name, profile)
    text = dump(recipe)
    again = load_recipe(page(text, "runs/deep/recipe.yaml"))
    assert again == recipe
    assert (compute_recipe_id(again), dump(again)) == (compute_recipe_id(recipe), text)
    assert text.splitlines()[0].startswith(f"# {name}")
    assert text.splitlines()[2] == f"name: {name}"


def test_a_recipe_that_uses_everything_loads_back_equal():
    page("x = 1", "model.py")
    page("", "weights.pth")
    text = """
        model: model.py
        name: all.of-it_1
        dataset:
          {name: d, format: voc, root: r, repeat: 3, classes: [a, "null"],
           splits: {train: [{annotations: a.txt}, {annotations: b.txt, images: x}], val: {annotations: c}}}
        image_size: [320, 200]
        schedule: {iterations: 5, lr: 1e-3, images_per_gpu: 1, warmup: 0, eval_every: null}
        weighting: {rule: "mine.rules:MyRule", alpha: 7, deep: {b: [1, [2.5]], a: "1e-5"}}
        set: {model.a: null, +model.b: [1, {c: 1e-7}], z.0.scale: [1, .inf], "a.b": "on"}
        imports: [mine, mine.rules]
        init_from: weights.pth
        checkpoint_every: 3
    """
    recipe = load_recipe(page(text))
    assert recipe.init_from == str(Path("weights.pth").resolve())
    assert recipe.schedule.lr == 0.001
    assert list(recipe.set) == ["a.b", "model.a", "+model.b", "z.0.scale"]
    assert load_recipe(page(dump(recipe), "else/where.yaml")) == recipe


# ------------------------------------------------------------------------------------------- extending


def test_a_recipe_changes_what_it_extends():
    page("extends: retinanet-r50-rlo\nset: {a.b: 1, a.c: 2}\nimports: [x]\n", "base.yaml")
    recipe = load_recipe(child("weighting: {gamma: 0}\nset: {a.c: 3}\nimports: [y]\n", of="base"))
    assert recipe.weighting == {**RLO, "gamma": 0.0}
    assert (recipe.set, recipe.imports, recipe.name) == ({"a.b": 1, "a.c": 3}, ["y"], "my")


def test_another_rule_starts_from_its_own_defaults():
    page("extends: retinanet-r50-rlo\nweighting: {alpha: 7, n: 3}\n", "base.yaml")
    recipe = load_recipe(child("weighting: {rule: avw}\n", of="base"))
    assert recipe.weighting["alpha"] == 100
    assert recipe.weighting["n"] == 2


def test_where_is_kept_only_if_given():
    assert "where" not in load_recipe("retinanet-r50-rlo").weighting
    recipe = load_recipe(child("weighting: {where: rpn}\n"))
    assert recipe.weighting == {**RLO, "where": "rpn"}
    assert load_recipe(page(dump(recipe), "else/where.yaml")).weighting == recipe.weighting
    assert load_recipe("my.yaml", sets=["weighting.where=both"]).weighting["where"] == "both"
    assert "where" not in load_recipe("my.yaml", sets=["weighting.where=null"]).weighting
    avw = load_recipe("my.yaml", "tiny", overrides={"weighting.rule": "avw"}).weighting
    assert (avw["rule"], avw["where"], avw["alpha"]) == ("avw", "rpn", 10)


def test_paths_count_from_the_file_they_stand_in():
    page("x = 1", "there/mine.py")
    page(
        "name: d\nformat: coco\nroot: r\nsplits: {train: {annotations: a}, val: {annotations: b}}\n",
        "there/d.yaml",
    )
    page("extends: retinanet-r50\nmodel: mine.py\ndataset: ./d.yaml\n", "there/base.yaml")
    recipe = load_recipe(child("", of="there/base.yaml"))
    assert recipe.model == str(Path("there/mine.py").resolve())
    assert recipe.dataset.name == "d"


@pytest.mark.parametrize("pages", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_a_circle_is_named(pages: dict[str, str]):
    for name, parent in pages.items():
        page(f"extends: {parent}\n", f"recipes/{name}.yaml")
    said = refusal("a")
    assert "extends itself" in said
    assert {"{'a': 'a'}": "a -> a", "{'a': 'b', 'b': 'a'}": "a -> b -> a"}.get(
        str(pages), "b -> c -> b"
    ) in said


def test_an_unknown_parent_names_the_child_and_the_nearest():
    said = refusal(child("", of="retinanet-r5"))
    assert said == "recipe my.yaml: extends: recipe 'retinanet-r5' not found; did you mean 'retinanet-r50'?"


# ------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schedlue: {lr: 1}", "schedlue: unknown key; did you mean 'schedule'?"),
        ("schedule: {epoch: 1}", "schedule.epoch: unknown key; did you mean 'epochs'?"),
        ("weighting: {alhpa: 5}", "weighting.alhpa: rule 'rlo' has no such option; did you mean 'alpha'?"),
        ("weighting: {rule: rlo, beta: [0.9, 0.1]}", "weighting.beta: [0.9, 0.1] is not allowed"),
        ("weighting: {alpha: 1}", "weighting.alpha: 1 is not allowed"),
        ("weighting: {gamma: -1}", "weighting.gamma: -1 is not allowed"),
        ("weighting: {actions: []}", "weighting.actions: [] is not allowed"),
        ("weighting: {n: 0}", "weighting.n: 0 is not allowed"),
        ("weighting: {rule: roo}", "weighting.rule: 'roo' is unknown; did you mean 'rlo'?"),
        ("weighting: {rule: 5}", "weighting.rule: 5 is not allowed"),
        ("weighting: {where: head}", "weighting.where: 'head' is not allowed: roi, rpn, both"),
        ("weighting: {where: [roi]}", "weighting.where: ['roi'] is not allowed: roi, rpn, both"),
        ("weighting: rlo", "weighting: must be a mapping, not 'rlo'"),
        ("weighting: {rule: static}", "weighting.weights: is missing"),
        (
            "dataset: {splits: {trian: {annotations: a}}}",
            "dataset.splits.trian: unknown key; did you mean 'train'?",
        ),
        (
            "dataset: {splits: {train: {imges: a}}}",
            "dataset.splits.train.imges: unknown key; did you mean 'images'?",
        ),
        ("dataset: {format: coko}", "dataset.format: 'coko' is not allowed"),
        ("schedule: {lr: fast}", "schedule.lr: 'fast' is not allowed"),
        ("schedule: {lr: 0}", "schedule.lr: 0 is not allowed"),
        ("schedule: {lr: .nan}", "schedule.lr: nan is not allowed"),
        ("schedule: {epochs: true}", "schedule.epochs: True is not allowed"),
        ("schedule: {epochs: 1.5}", "schedule.epochs: 1.5 is not allowed"),
        ("schedule: {epochs: 2, iterations: 5}", "schedule: give its length as either epochs or iterations"),
        ("schedule: {epochs: null}", "schedule: give its length as either epochs or iterations"),
        (
            "schedule: {milestones: [11, 8]}",
            "schedule.milestones: [11, 8] is not allowed: they must increase",
        ),
        ("schedule: {iterations: 5}", "schedule.milestones: they need"),
        ("schedule: {decay: cosine}", "schedule.milestones: they need"),
        ("schedule: 12", "schedule: must be a mapping, not 12"),
        ("model: retinanet", "model: 'retinanet' is not allowed: mmdet:"),
        ("model: null", "model: is missing"),
        ("set: {a..b: 1}", "set: 'a..b' is not a dotted MMEngine key"),
        ("set: {a.b: 1, +a.b: 2}", "set: 'a.b' is given twice"),
        ("set: [a]", "set: must be a mapping"),
        ("imports: mine", "imports: 'mine' is not allowed"),
        ("imports: ['a b']", "imports: 'a b' is not the name of a Python module"),
        ("image_size: [320]", "image_size: [320] is not allowed"),
        ("image_size: [320, 0]", "image_size[1]: 0 is not allowed"),
        ("name: a/b", "name: 'a/b' is not allowed"),
        ("checkpoint_every: 0", "checkpoint_every: 0 is not allowed"),
        (
            "profiles: {tiny: {schedule: {lrr: 1}}}",
            "profiles.tiny: schedule.lrr: unknown key; did you mean 'lr'?",
        ),
        ("profiles: {tiny: 5}", "profiles.tiny: must be a mapping, not 5"),
        ("profiles: [tiny]", "profiles: must be a mapping of profile names"),
        ("extends: [a]", "line 2: not valid YAML: the key 'extends' is given twice"),
    ],
)
def test_a_wrong_recipe_says_file_path_and_what_is_allowed(text: str, expected: str):
    said = refusal(child(text))
    assert "my.yaml" in said
    assert expected in said


def test_a_mistake_in_a_parent_names_the_parent():
    page("extends: retinanet-r50\nschedule: {lrr: 1}\n", "base.yaml")
    assert refusal(child("", of="base")).startswith("recipe base.yaml: schedule.lrr: unknown key")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("schedule.lrr=1", "--set: schedule.lrr: unknown key; did you mean 'lr'?"),
        ("schedule.lr=-1", "--set: schedule.lr: -1 is not allowed"),
        ("weighting.alpha=1", "--set: weighting.alpha: 1 is not allowed"),
        ("weighting.where=rip", "--set: weighting.where: 'rip' is not allowed: roi, rpn, both"),
        ("dataset.splits.trian.images=x", "--set: dataset.splits.trian: unknown key; did you mean 'train'?"),
        ("dataset=cocoo", "data set 'cocoo' not found; did you mean 'coco'?"),
    ],
)
def test_a_mistake_on_the_command_line_names_it(assignment: str, expected: str):
    assert refusal("retinanet-r50-rlo", sets=[assignment]).startswith(expected)


def test_a_mistake_in_the_file_is_not_blamed_on_the_command_line():
    assert refusal(child("weighting: {alpha: 1}"), sets=["weighting.n=3"]).startswith(
        "recipe my.yaml: weighting.alpha"
    )


# ------------------------------------------------------------------------------------------- profiles


def test_the_tiny_profile():
    recipe = load_recipe("retinanet-r50-rlo", "tiny")
    assert recipe.weighting == {**RLO, "alpha": 10}
    assert (recipe.profile, recipe.name, recipe.dataset.name) == ("tiny", "retinanet-r50-rlo", "shapes")
    assert recipe.schedule.epochs is None
    assert recipe.schedule.iterations > 0
    assert recipe.set["model.bbox_head.anchor_generator.octave_base_scale"] == 2
    assert recipe.set["model.backbone.depth"] == 18
    assert recipe.model == load_recipe("retinanet-r50-rlo").model


@pytest.mark.parametrize(
    ("alpha", "scaled"), [(5, 2), (50, 5), (100, 10), (200, 20), (500, 50), (26, 3), (24, 2)]
)
def test_a_profile_shortens_the_interval_of_recipes_and_tables(alpha: int, scaled: int):
    from_recipe = load_recipe(child(f"weighting: {{alpha: {alpha}}}"), "tiny")
    from_table = load_recipe("retinanet-r50-rlo", "tiny", overrides={"weighting.alpha": alpha})
    assert from_recipe.weighting["alpha"] == from_table.weighting["alpha"] == scaled


def test_set_is_literal_under_a_profile():
    recipe = load_recipe("retinanet-r50-rlo", "tiny", sets=["weighting.alpha=50"])
    assert recipe.weighting["alpha"] == 50
    recipe = load_recipe("retinanet-r50-rlo", "tiny", sets=["schedule.iterations=7", "weighting.rule=avw"])
    assert (recipe.schedule.iterations, recipe.weighting["alpha"]) == (
        7,
        10,
    )  # the rule's own default, shortened
    assert load_recipe("retinanet-r50-rlo", "tiny", sets=["weighting.gamma=1"]).weighting["alpha"] == 10


def test_a_users_own_rule_is_shortened_where_it_has_an_interval():
    of = "retinanet-r50"
    assert load_recipe(child("weighting: {rule: 'm:R', alpha: 40}", of), "tiny").weighting["alpha"] == 4
    assert load_recipe(child("weighting: {rule: 'm:R'}", of), "tiny").weighting == {"rule": "m:R"}


def test_layers_come_in_order():
    page(
        "schedule: {lr: 0.3, iterations: 3, epochs: null, milestones: []}\nset: {p.q: profile}\n",
        "quick.yaml",
    )
    ref = child("schedule: {lr: 0.1}\nset: {p.q: recipe}\nprofiles: {quick: {schedule: {iterations: 4}}}\n")
    recipe = load_recipe(ref, "./quick.yaml", overrides={"schedule.lr": 0.2, "p.q": "table"})
    assert (recipe.schedule.lr, recipe.schedule.iterations, recipe.set) == (0.3, 4, {"p.q": "profile"})
    assert (recipe.profile, recipe.weighting["alpha"]) == ("quick", 100)
    recipe = load_recipe(ref, "./quick.yaml", sets=["schedule.lr=0.4", "p.q=set"], dataset="shapes")
    assert (recipe.schedule.lr, recipe.set, recipe.dataset.name) == (0.4, {"p.q": "set"}, "shapes")
    assert load_recipe(ref, overrides={"schedule.lr": 0.2}).schedule.lr == 0.2


def test_additions_to_a_profile_are_inherited():
    page("extends: retinanet-r50\nprofiles: {tiny: {set: {model.neck.out_channels: 16}}}\n", "base.yaml")
    recipe = load_recipe(child("profiles: {tiny: {set: {a.b: 1}, alpha_scale: 0.5}}\n", of="base"), "tiny")
    assert recipe.set["model.neck.out_channels"] == 16
    assert recipe.set["model.bbox_head.in_channels"] == 48
    assert (recipe.set["a.b"], recipe.weighting["alpha"]) == (1, 50)
    assert load_recipe("my.yaml").set == {}


def test_a_recipe_may_bring_a_profile_of_its_own():
    recipe = load_recipe(child("profiles: {quick: {schedule: {epochs: 1}}}\n"), "quick")
    assert (recipe.profile, recipe.schedule.epochs) == ("quick", 1)


def test_a_resolved_recipe_is_never_scaled_again():
    recipe = load_recipe("retinanet-r50-rlo", "tiny")
    ref = page(dump(recipe), "recipe.yaml")
    assert load_recipe(ref, "tiny") == recipe
    assert load_recipe(ref, "tiny", sets=["weighting.gamma=0.5"]).weighting["alpha"] == 10
    page("schedule: {lr: 1.0}\n", "recipes/profiles/other.yaml")
    assert "was resolved with profile 'tiny'" in refusal(ref, "other")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpha_scale: 0\n", "alpha_scale: 0 is not allowed"),
        ("alpha_scale: fast\n", "alpha_scale: 'fast' is not allowed"),
        ("alpha_scale: true\n", "alpha_scale: True is not allowed"),
        ("alhpa_scale: 1\n", "alhpa_scale: unknown key; did you mean 'alpha_scale'?"),
        ("name: x\n", "name: a profile cannot change that"),
        ("extends: tiny\n", "extends: unknown key"),
    ],
)
def test_a_wrong_profile_says_so(text: str, expected: str):
    said = refusal("retinanet-r50", page(text, "odd.yaml"))
    assert "odd.yaml" in said
    assert expected in said


def test_an_unknown_profile_names_the_nearest():
    assert refusal("retinanet-r50", "tinny") == "profile 'tinny' not found; did you mean 'tiny'?"


# ------------------------------------------------------------------------------------------- identity


def test_defaults_written_out_change_nothing():
    short = load_recipe(page("extends: retinanet-r50\nweighting: {rule: rlo}\n"))
    order = "actions: [uniform, largest, variance, smallest]"
    long = load_recipe(
        page(f"extends: retinanet-r50\nweighting: {{rule: rlo, n: 2, {order}, amplification: [1.5, 1]}}\n")
    )
    assert short == long
    assert (
        compute_recipe_id(short)
        == compute_recipe_id(long)
        == compute_recipe_id(load_recipe("retinanet-r50-rlo"))
    )


@pytest.mark.parametrize(
    "sets",
    [
        ["name=other"],
        ["dataset.root=/elsewhere"],
        ["checkpoint_every=7"],
        ["schedule.gpus=1", "schedule.images_per_gpu=8"],
        ["schedule.gpus=8", "schedule.images_per_gpu=1"],
        ["weighting.where=roi"],  # what holds without it
    ],
)
def test_execution_is_not_identity(sets: list[str]):
    plain = load_recipe("retinanet-r50-rlo")
    changed = load_recipe("retinanet-r50-rlo", sets=sets)
    assert changed != plain
    assert compute_recipe_id(changed) == compute_recipe_id(plain)


@pytest.mark.parametrize(
    "assignment",
    [
        "schedule.lr=0.01",
        "schedule.images_per_gpu=4",
        "schedule.epochs=11",
        "schedule.eval_every=2",
        "weighting.alpha=101",
        "weighting.epsilon=1e-6",
        "weighting.actions=[variance]",
        "weighting.where=rpn",
        "model=mmdet:retinanet/retinanet_r101_fpn_1x_coco.py",
        "dataset=shapes",
        "dataset.classes=[person]",
        "dataset.repeat=3",
        "image_size=[1000,600]",
        "imports=[mine]",
        "init_from=weights.pth",
        "model.neck.num_outs=5",
    ],
)
def test_whatever_changes_the_training_changes_the_identity(assignment: str):
    assert compute_recipe_id(load_recipe("retinanet-r50-rlo", sets=[assignment])) != compute_recipe_id(
        load_recipe("retinanet-r50-rlo")
    )


def test_the_hash_is_stable_and_covers_the_data():
    recipe = load_recipe("retinanet-r50-rlo", "tiny")
    assert len(compute_recipe_id(recipe)) == 8
    assert int(compute_recipe_id(recipe), 16) >= 0
    hashes = {
        compute_recipe_id(recipe),
        compute_config_hash(recipe, "a"),
        compute_config_hash(recipe, "b"),
        compute_recipe_id(load_recipe(recipe.name)),
    }
    assert len(hashes) == 4
    content = describe_identity(recipe)
    assert content["schedule"]["batch"] == 8
    assert content["profile"] == "tiny"
    assert json.loads(json.dumps(content)) == content
    assert Recipe.model_validate(recipe.model_dump()) == recipe


def test_the_order_of_keys_and_their_plus_do_not_count():
    one = load_recipe(page("extends: retinanet-r50\nset: {b.c: 1, a: 2}\n"))
    two = load_recipe(page("extends: retinanet-r50\nset: {+a: 2, b.c: 1}\n"))
    assert compute_recipe_id(one) == compute_recipe_id(two)


def test_a_node_and_its_class_come_before_what_depends_on_them():
    keys = ["model", "model.type", "model.backbone", "model.neck", "model.neck.type", "model.neck.depth"]
    recipe = load_recipe(
        page("extends: retinanet-r50\nset: {" + ", ".join(f"{k}: 1" for k in keys[::-1]) + "}\n")
    )
    assert list(recipe.set) == keys


def test_a_users_model_counts_by_its_text():
    ids = []
    for folder, text in (("a", "x = 1"), ("b", "x = 1"), ("b", "x = 2")):
        page(text, f"{folder}/mine.py")
        ids.append(compute_recipe_id(load_recipe(child("model: mine.py\n", name=f"{folder}/my.yaml"))))
    assert ids[0] == ids[1] != ids[2]
