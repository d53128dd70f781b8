"""The options of `--slurm partition=gpu,time=12h,mem=64G`, checked before anything is written. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from experiments.common.errors import UserError, did_you_mean

EXAMPLE = "--slurm partition=gpu,time=12h,mem=64G,gpus=4,cpus=16"
UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
LISTS = ("partition", "constraint")  # may hold commas; so may any sbatch.<name>


@dataclass(frozen=True)
class SlurmOptions:
    """What each job asks for.

    Attributes:
        time_min: Wall-clock limit in minutes. Before it the run saves a checkpoint and is queued again.
        mem: Memory of a node, as sbatch writes it: `64G`.
        gpus: GPUs of each node, one worker each; 0 asks for none; None leaves it to the recipe, if the
            partition has GPUs.
        nodes: Machines of one run; None leaves it to the command.
        cpus: CPU cores of each node; None takes Slurm's default.
        max: How many jobs of a sweep may run at once; None is no cap.
        signal_delay_s: How long before its end a job is told to save.
        sbatch: Further options of sbatch by their long names; True is one without a value.
    """

    time_min: int
    partition: str | None = None
    mem: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    nodes: int | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    max: int | None = None
    signal_delay_s: int = 120
    sbatch: dict[str, str | bool] = field(default_factory=dict)


KEYS = sorted({f.name for f in fields(SlurmOptions)} - {"time_min", "sbatch"} | {"time"})
_N = "[0-9]{1,9}"
# Key to what its value must look like, how messages call that, and an example.
_FORMS = {
    "gpus": (_N, "a count", "gpus=2"),
    **{key: (f"(?=.*[1-9]){_N}", "a count", f"{key}=2") for key in ("cpus", "nodes", "max")},
    "mem": (f"{_N}[KMGT]?", "an amount of memory", "mem=64G"),
}
# Durations as sbatch writes them: days, hours, minutes and seconds.
_CLOCKS = (f"({_N})-({_N})(?::({_N}))?(?::({_N}))?", f"()(?:({_N}):)?({_N}):({_N})")


def parse(text: str) -> SlurmOptions:
    """Return the options that the text means.

    Args:
        text: `key=value,key=value`; `sbatch.<name>=value`, or `sbatch.<name>` alone, is passed on to sbatch.

    Raises:
        UserError: An unknown key, a value that it cannot have, or no time.
    """
    values: dict[str, Any] = {}
    sbatch: dict[str, str | bool] = {}
    for key, value in _pairs(text):
        name = key.removeprefix("sbatch.")
        if name != key and name.replace("-", "_") not in values and name not in sbatch:
            sbatch[name] = value
        elif name == key and key not in KEYS:
            raise UserError(
                f"--slurm: unknown key '{key}'; {did_you_mean(key, KEYS)}",
                f"{EXAMPLE}; any other option of sbatch: sbatch.<name>=<value>",
            )
        elif name != key or key in values:
            raise UserError(f"--slurm: '{name}' is given twice", EXAMPLE)
        else:
            values[key] = _value(key, str(value))
    if "time" not in values:
        raise UserError("--slurm requires time, the limit of one job", EXAMPLE)
    options = SlurmOptions(time_min=values.pop("time"), **values, sbatch=sbatch)
    if options.time_min * 60 <= 2 * options.signal_delay_s:
        raise UserError(
            f"--slurm: time of {options.time_min} min leaves nothing beside the {options.signal_delay_s} s before"
            " its end in which a run saves",
            "a longer time, or a shorter signal_delay_s=SECONDS",
        )
    return options


def _pairs(text: str) -> Iterator[tuple[str, str | bool]]:
    """Split at commas before a key, but not at those within a value that may hold them."""
    for part in re.split(r",(?=[^,=]+=|\s*sbatch\.[^,=]+(?:,|$))", text):
        key, equals, value = (word.strip() for word in part.partition("="))
        first, *more = (word.strip() for word in (value if equals else key).split(","))
        is_free = key.startswith("sbatch.") and key != "sbatch."
        if not equals and is_free and not more:
            yield key, True
            continue
        wrong = more if "" in more or not (is_free or key in LISTS) else []
        if not equals or not key or wrong:
            raise UserError(f"--slurm: '{wrong[0] if equals and wrong else first}' is not key=value", EXAMPLE)
        yield key, ",".join([first, *more])


def _value(key: str, text: str) -> str | int:
    if not text:
        raise UserError(f"--slurm: '{key}' has no value", EXAMPLE)
    if key == "time":
        return -(-_seconds(key, text, 60) // 60)
    if key == "signal_delay_s":
        return _seconds(key, text, 1)
    form, called, example = _FORMS.get(key, (".*", "", ""))
    if not re.fullmatch(form, text):
        raise UserError(f"--slurm: {key}={text} is not {called}", example)
    return int(text) if called == "a count" else text


def _seconds(key: str, text: str, plain: int) -> int:
    """Return the seconds of `12h`, `1d12h`, `90m`, `2-00:00:00`, `12:00:00` or `90:00`.

    A bare number counts `plain` seconds.
    """
    total, clock = 0, next(filter(None, (re.fullmatch(form, text) for form in _CLOCKS)), None)
    if re.fullmatch(_N, text):
        total = int(text) * plain
    elif re.fullmatch(f"({_N}[dhms])+", text):
        total = sum(int(count) * UNITS_S[unit] for count, unit in re.findall("([0-9]+)([dhms])", text))
    elif clock is not None:
        total = sum(int(part or 0) * unit for part, unit in zip(clock.groups(), UNITS_S.values()))
    if total < 1:
        raise UserError(f"--slurm: {key}={text} is not a duration", f"{key}=12h, 90m, 120s or 2-00:00:00")
    return total
