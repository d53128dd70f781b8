"""Text from records and logs, before a terminal, a spreadsheet or a run folder gets it."""

from __future__ import annotations

import csv
import io

import pytest

from experiments.common.errors import UserError
from experiments.common.printable import hide_secrets, make_cell_safe, printable, printable_values


@pytest.mark.parametrize(
    "control", ["\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028"]
)
def test_what_a_terminal_obeys_is_replaced(control: str) -> None:
    assert printable(f"a{control}[2Jb") == "a\ufffd[2Jb"
    assert UserError("m", f"msdet rm {control}x").hint == "msdet rm \ufffdx"


def test_text_of_all_scripts_stays() -> None:
    text = "AP 36,9 → größe\tמבחן 数据集 🙂\nnext line"
    assert printable(text) == text


def test_every_name_and_text_of_a_record_is_covered_but_the_patch() -> None:
    hostile = {
        "metrics": {"A\x1bP": 1.5},
        "notes": ["x\x1b", None, 3],
        "git": {"patch": "+\x1b", "commit": "\x1b"},
    }
    assert printable_values(hostile) == {
        "metrics": {"A\ufffdP": 1.5},
        "notes": ["x\ufffd", None, 3],
        "git": {"patch": "+\x1b", "commit": "\ufffd"},
    }


@pytest.mark.parametrize("text", ["=1+2", "+SUM(A1)", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1+2", "-α"])
def test_a_spreadsheet_gets_no_formula(text: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow([make_cell_safe(text)])
    assert next(csv.reader([stream.getvalue()])) == [f"'{text}"]


@pytest.mark.parametrize("value", ["-0.25", "-0.1 0.3 -1e-05", "+3", "", "RLO - 2", "a=b", -0.5, None, 3])
def test_numbers_and_other_text_stay(value: object) -> None:
    assert make_cell_safe(value) == value


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://ada:lovelace@mlflow.example:5000", "http://***@mlflow.example:5000"),
        ("https://ghp_0123456789@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("--set model.api_key=0123", "--set model.api_key=***"),
        ("{'password': 'open sesame'}", "{'password': '***'}"),
        ("token='unfinished", "token=***"),
        ("--track mlflow --token=abcdef", "--track mlflow --token=***"),
    ],
)
def test_a_secret_in_a_text_is_hidden(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "--set weighting.alpha=5",
        "--set model.num_tokens=5",
        "see https://arxiv.org/abs/2108.04014",
        "user@host: /data/coco",
        "results/runs/retinanet-r50/3148f40f/seed0",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert hide_secrets(text) == text


def test_the_value_of_a_secret_variable_is_hidden_wherever_it_stands(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "f00dcafe")
    monkeypatch.setenv("SHORT_TOKEN", "5")
    assert hide_secrets("refused key f00dcafe after 5 s") == "refused key *** after 5 s"
