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
        if name != key:
            if name.replace("-", "_") in values or name in sbatch:
                raise UserError(f"--slurm: '{name}' is given twice", EXAMPLE)
            sbatch[name] = value
        elif key not in KEYS:
            raise UserError(
                f"--slurm: unknown key '{key}'; {did_you_mean(key, KEYS)}",
                f"{EXAMPLE}; any other option of sbatch: sbatch.<name>=<value>",
            )
        elif key in values or ("time_min" in values and key == "time"):
            raise UserError(f"--slurm: '{key}' is given twice", EXAMPLE)
        else:
            values.update([_value(key, str(value))])
    if "time_min" not in values:
        raise UserError("--slurm requires time, the limit of one job", EXAMPLE)
    options = SlurmOptions(**values, sbatch=sbatch)
    if options.time_min * 60 <= 2 * options.signal_delay_s:
        raise UserError(
            f"--slurm: time of {options.time_min} min leaves nothing beside the {options.signal_delay_s} s before"
            " its end in which a run saves",
            "a longer time, or a shorter signal_delay_s=SECONDS",
        )
    return options


def _pairs(text: str) -> Iterator[tuple[str, str | bool]]:
    """Split at commas, but for those within a value that may hold them."""
    key, value = "", ""
    for part in text.split(","):
        name, equals, given = part.strip().partition("=")
        if equals and name:
            if key:
                yield key, value
            key, value = name.strip(), given.strip()
        elif name.startswith("sbatch.") and len(name) > len("sbatch."):
            if key:
                yield key, value
            key, value = "", ""
            yield name, True
        elif name and (key in LISTS or key.startswith("sbatch.")):
            value = f"{value},{name}"
        else:
            raise UserError(f"--slurm: '{part.strip()}' is not key=value", EXAMPLE)
    if key:
        yield key, value


def _value(key: str, text: str) -> tuple[str, Any]:
    if not text:
        raise UserError(f"--slurm: '{key}' has no value", EXAMPLE)
    if key == "time":
        return "time_min", -(-_seconds(key, text, 60) // 60)
    if key == "signal_delay_s":
        return key, _seconds(key, text, 1)
    if key in ("gpus", "cpus", "nodes", "max"):
        if not text.isdigit() or (int(text) == 0 and key != "gpus"):
            raise UserError(f"--slurm: {key}={text} is not a count", f"{key}=2")
        return key, int(text)
    if key == "mem" and not re.fullmatch(r"\d+[KMGT]?", text):
        raise UserError(f"--slurm: mem={text} is not an amount of memory", "mem=64G")
    return key, text


def _seconds(key: str, text: str, plain: int) -> int:
    """Return the seconds of `12h`, `1d12h`, `90m`, `2-00:00:00`, `12:00:00` or `90:00`.

    Args:
        key: For messages.
        text: The duration.
        plain: Seconds that a bare number counts.
    """
    if text.isdigit():
        total = int(text) * plain
    elif re.fullmatch(r"(\d+[dhms])+", text):
        total = sum(int(count) * UNITS_S[unit] for count, unit in re.findall(r"(\d+)([dhms])", text))
    elif match := re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?", text):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = days * 86400 + hours * 3600 + minutes * 60 + seconds
    elif match := re.fullmatch(r"(?:(\d+):)?(\d+):(\d+)", text):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = hours * 3600 + minutes * 60 + seconds
    else:
        total = 0
    if total < 1:
        raise UserError(f"--slurm: {key}={text} is not a duration", f"{key}=12h, 90m, 120s or 2-00:00:00")
    return total
