"""`--set`, lists of values, and how layers merge."""

from __future__ import annotations

import pytest

from experiments.common.errors import UserError
from experiments.recipes.overrides import RECIPE_KEYS, build_layer, merge, parse_assignment, parse_values
from experiments.recipes.schema import Recipe


def apply_sets(raw: dict, assignments: list[str]) -> dict:
    """Return an unvalidated recipe changed by `KEY=VALUE` strings."""
    return merge(raw, build_layer(parse_assignment(text) for text in assignments))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1e-3", ("a.b", 0.001)),
        ("a=5", ("a", 5)),
        ("a=[1.5, 1.0]", ("a", [1.5, 1.0])),
        ("a={type: FPN, n: 2}", ("a", {"type": "FPN", "n": 2})),
        ("a=null", ("a", None)),
        ("a='5'", ("a", "5")),
        ("a=b=c", ("a", "b=c")),
        ("+model.x=true", ("+model.x", True)),
        ("a=__import__('os')", ("a", "__import__('os')")),  # text, never code
    ],
)
def test_an_assignment_holds_a_yaml_value(text: str, expected: tuple):
    assert parse_assignment(text) == expected


@pytest.mark.parametrize(
    "text", ["a", "", "=5", "a=", "a= ", "a..b=1", ".a=1", "a.=1", "+=1", "a =[", "a=[1", "a={b: 1, b: 2}"]
)
def test_a_bad_assignment_is_refused(text: str):
    with pytest.raises(UserError, match="--set"):
        parse_assignment(text)


def test_recipe_keys_go_to_their_places_and_all_others_to_mmengine():
    raw = {"schedule": {"lr": 1, "epochs": 3}, "set": {"model.neck.num_outs": 5}}
    changed = apply_sets(
        raw,
        [
            "schedule.lr=0.1",
            "weighting.rule=avw",
            "model=mine.py",
            "model.neck.num_outs=4",
            "+model.new=1",
            "set.optim_wrapper.clip_grad.max_norm=35",
            "default_hooks.logger.interval=10",
            "log_level=DEBUG",
            "imports=[mine]",
            "dataset.root=/data",
        ],
    )
    assert changed == {
        "schedule": {"lr": 0.1, "epochs": 3},
        "weighting": {"rule": "avw"},
        "model": "mine.py",
        "set": {
            "model.neck.num_outs": 4,
            "+model.new": 1,
            "optim_wrapper.clip_grad.max_norm": 35,
            "default_hooks.logger.interval": 10,
            "log_level": "DEBUG",
        },
        "imports": ["mine"],
        "dataset": {"root": "/data"},
    }
    assert raw == {"schedule": {"lr": 1, "epochs": 3}, "set": {"model.neck.num_outs": 5}}


def test_every_field_of_a_recipe_can_be_set_but_the_profile():
    assert set(Recipe.model_fields) - set(RECIPE_KEYS) == {"profile"}
    for key in RECIPE_KEYS:
        assert apply_sets({}, [f"{key}=1"]) == {key: 1}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("lr=0.1", "schedule.lr"),
        ("epoch=3", "schedule.epochs"),
        ("alpha=5", "weighting.alpha"),
        ("alhpa=5", "weighting.alpha"),
        ("rule=avw", "weighting.rule"),
        ("wehre=rpn", "weighting.where"),
        ("root=x", "dataset.root"),
        ("datset=x", "dataset"),
        ("wieghting.alpha=5", "weighting.alpha"),
        ("shedule.lr=5", "schedule.lr"),
    ],
)
def test_a_misspelt_recipe_key_never_becomes_an_mmengine_key(text: str, meant: str):
    with pytest.raises(UserError, match=f"did you mean '{meant}'"):
        apply_sets({}, [text])


@pytest.mark.parametrize(
    "text", ["profile=tiny", "extends=a", "profiles.tiny.set=1", "name.x=1", "imports.0=a"]
)
def test_what_cannot_be_set_is_refused(text: str):
    with pytest.raises(UserError):
        apply_sets({}, [text])


def test_the_order_of_assignments_does_not_matter():
    raw = {"weighting": {"rule": "rlo", "alpha": 100, "gamma": 0.5}}
    texts = ["weighting.alpha=7", "weighting.rule=avw", "dataset.root=/d", "dataset=coco"]
    changed = apply_sets(raw, texts)
    assert changed == apply_sets(raw, texts[::-1])
    assert changed["weighting"] == {"rule": "avw", "alpha": 7}
    assert (changed["dataset"]["name"], changed["dataset"]["root"]) == ("coco", "/d")


def test_assignments_that_contradict_are_refused():
    with pytest.raises(UserError, match="'schedule' is set to 5 as well"):
        apply_sets({}, ["schedule=5", "schedule.lr=1"])


def test_merging_keeps_what_is_not_mentioned():
    base = {"schedule": {"lr": 1, "milestones": [8, 11]}, "imports": ["a"], "set": {"x.y": 1}}
    layer = {"schedule": {"milestones": [2]}, "imports": ["b"], "set": {"x.z": 2}}
    assert merge(base, layer) == {
        "schedule": {"lr": 1, "milestones": [2]},
        "imports": ["b"],
        "set": {"x.y": 1, "x.z": 2},
    }


@pytest.mark.parametrize(
    ("base", "layer", "expected"),
    [
        ({"rule": "rlo", "alpha": 5}, {"n": 3}, {"rule": "rlo", "alpha": 5, "n": 3}),
        ({"rule": "rlo", "alpha": 5}, {"rule": "rlo", "n": 3}, {"rule": "rlo", "alpha": 5, "n": 3}),
        ({"rule": "rlo", "alpha": 5}, {"rule": "avw", "n": 3}, {"rule": "avw", "n": 3}),
        ({"alpha": 5}, {"rule": "uniform"}, {"alpha": 5, "rule": "uniform"}),
        ({"alpha": 5}, {"rule": "avw"}, {"rule": "avw"}),
        # which head is weighted is no option of a rule
        ({"rule": "rlo", "where": "rpn", "n": 3}, {"rule": "avw"}, {"rule": "avw", "where": "rpn"}),
        ({"rule": "rlo", "where": "rpn"}, {"rule": "avw", "where": "both"}, {"rule": "avw", "where": "both"}),
        ({"rule": "rlo", "where": "rpn"}, {"n": 3}, {"rule": "rlo", "where": "rpn", "n": 3}),
    ],
)
def test_another_rule_drops_the_options_of_the_old(base: dict, layer: dict, expected: dict):
    assert merge({"weighting": base}, {"weighting": layer})["weighting"] == expected


def test_a_named_data_set_replaces_and_an_unnamed_one_changes():
    base = {"dataset": {"name": "a", "root": "r", "classes": ["x"]}}
    assert merge(base, {"dataset": {"root": "s"}})["dataset"] == {"name": "a", "root": "s", "classes": ["x"]}
    assert merge(base, {"dataset": {"name": "b", "root": "s"}})["dataset"] == {"name": "b", "root": "s"}
    assert merge(base, {"dataset": "coco"})["dataset"] == "coco"


def test_an_mmengine_key_replaces_those_below_it_in_either_spelling():
    base = {"set": {"model.neck.in": 1, "model.neck": 2, "+model.head": 3, "model.necks": 4}}
    assert merge(base, {"set": {"+model.neck": 5, "model.head": 6}})["set"] == {
        "model.necks": 4,
        "+model.neck": 5,
        "model.head": 6,
    }


def test_a_length_in_the_other_unit_replaces_the_length():
    assert merge({"schedule": {"epochs": 12, "lr": 1}}, {"schedule": {"iterations": 9}}) == {
        "schedule": {"lr": 1, "iterations": 9}
    }
    both = {"schedule": {"epochs": 1, "iterations": 2}}
    assert merge({"schedule": {"epochs": 12}}, both) == both  # left for validation to refuse


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("5,50,100", [5, 50, 100]),
        ("5", [5]),
        ("1e-3,5,[1.5,1.0]", [0.001, 5, [1.5, 1.0]]),
        ("[[1,2],[3]], [4]", [[[1, 2], [3]], [4]]),
        ("{a: 1, b: [2,3]},null", [{"a": 1, "b": [2, 3]}, None]),
        ("'a,b',\"c,]\",mmdet:d/e.py", ["a,b", "c,]", "mmdet:d/e.py"]),
    ],
)
def test_values_are_separated_by_outer_commas_only(text: str, values: list):
    assert parse_values(text) == values


@pytest.mark.parametrize("text", ["", "5,", ",5", "5,,6", "[1,2", "1]", "'a", "1],[2"])
def test_values_that_cannot_be_separated_are_refused(text: str):
    with pytest.raises(UserError, match="is empty, or brackets or quotes do not match"):
        parse_values(text)
