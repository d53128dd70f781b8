"""Passwords and tokens do not reach what a run folder keeps."""

import pytest

from experiments.common.secrets import hide_secrets


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
