"""Hints repeat what was typed."""

from __future__ import annotations

import sys

import pytest

from msdet_cli.hints import complete_hint, make_next_command, repeat_command

TYPED = [
    "run",
    "a b.yaml",
    "-p",
    "tiny",
    "--set",
    "x=1",
    "--set=y=[1, 2]",
    "--seed",
    "3",
    "--results-dir=out",
]


@pytest.mark.parametrize(
    ("words", "more", "without", "expected"),
    [
        (TYPED[:4], ("--retry-failed",), (), "msdet run 'a b.yaml' -p tiny --retry-failed"),
        (TYPED, ("--seeds", "3"), ("--seed",), "msdet run 'a b.yaml' -p tiny --set x=1 '--set=y=[1, 2]'"
                                               " --results-dir=out --seeds 3"),
        (["run", "x", "-ptiny", "--dry-run", "--seeds", "2"], ("--seeds", "3"), ("--dry-run", "--profile"),
         "msdet run x --seeds 3"),
    ],
)  # fmt: skip
def test_repeated_command_has_all_that_was_typed(monkeypatch, words, more, without, expected):
    monkeypatch.setattr(sys, "argv", ["msdet", *words])
    assert repeat_command(*more, without=without) == expected


def test_next_command_keeps_what_both_have(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["msdet", *TYPED])
    assert make_next_command("report", "t 1") == "msdet report 't 1' --results-dir=out"
    assert (
        make_next_command("show", keep=("--profile", "--set"))
        == "msdet show -p tiny --set x=1 '--set=y=[1, 2]'"
    )


@pytest.mark.parametrize(
    ("hint", "completed"),
    [
        (
            "--results-dir DIR",
            "msdet run 'a b.yaml' -p tiny --set x=1 '--set=y=[1, 2]' --seed 3 --results-dir DIR",
        ),
        ("msdet runs", "msdet runs -p tiny --results-dir=out"),
        ("msdet show x   (all options)", "msdet show x -p tiny   (all options)"),
        ("msdet run x -p other", "msdet run x -p other --results-dir=out"),
        ("msdet data verify x", "msdet data verify x"),
        ("msdet ls recipes", "msdet ls recipes"),
        ("--seed 3 is one seed; --seeds 3 are three", "--seed 3 is one seed; --seeds 3 are three"),
        ("name a file's folder", "name a file's folder"),
    ],
)
def test_a_hint_is_completed_with_the_places_that_were_typed(monkeypatch, hint, completed):
    monkeypatch.setattr(sys, "argv", ["msdet", *TYPED])
    assert complete_hint(hint) == completed
