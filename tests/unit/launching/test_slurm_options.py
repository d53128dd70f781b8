"""What `--slurm key=value,...` means, and what it says to a slip of the pen."""

from __future__ import annotations

import pytest

from experiments.common.errors import UserError
from experiments.launching.slurm.options import SlurmOptions, parse


def test_the_options_of_the_readme() -> None:
    assert parse("partition=gpu,time=12h,mem=64G") == SlurmOptions(
        time_min=720, partition="gpu", mem="64G", gpus=None, signal_delay_s=120
    )


def test_every_other_option() -> None:
    text = "gpus=4, cpus=16, nodes=2, account=vision, qos=low, constraint=a100|h100, max=8, signal_delay_s=300, time=1d"
    assert parse(text) == SlurmOptions(
        time_min=1440, gpus=4, cpus=16, nodes=2, account="vision", qos="low", constraint="a100|h100", max=8,
        signal_delay_s=300,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("12h", 720), ("90m", 90), ("1d12h", 2160), ("2-00:00:00", 2880), ("1-12", 2160), ("12:00:00", 720),
     ("90:00", 90), ("45", 45), ("90:01", 91), ("601s", 11)],
)  # fmt: skip
def test_lengths_of_time_as_people_and_as_sbatch_write_them(text: str, minutes: int) -> None:
    assert parse(f"time={text}").time_min == minutes


def test_commas_stay_in_values_that_may_hold_them() -> None:
    options = parse("partition=a,b,time=1h,sbatch.exclude=n1,n2,sbatch.exclusive,sbatch.mail-type=END")
    assert options.partition == "a,b"
    assert options.sbatch == {"exclude": "n1,n2", "exclusive": True, "mail-type": "END"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("partion=gpu,time=1h", "unknown key 'partion'; did you mean 'partition'?"),
        ("time=1h,mem=lots", "mem=lots is not an amount of memory"),
        ("time=soon", "time=soon is not a duration"),
        ("time=0", "time=0 is not a duration"),
        ("time=1h,max=0", "max=0 is not a count"),
        ("time=1h,gpus=two", "gpus=two is not a count"),
        ("time=1h,gpus=²", "gpus=² is not a count"),
        ("time=1h,cpus=" + "9" * 5000, "is not a count"),
        ("time=" + "9" * 5000 + "h", "is not a duration"),
        ("time=1h,mem=1G,2G", "'2G' is not key=value"),
        ("partition=a,,time=1h", "'' is not key=value"),
        ("time=1h,time=2h", "'time' is given twice"),
        ("time=1h,sbatch.begin=now,sbatch.begin=noon", "'begin' is given twice"),
        ("time=1h,mem", "'mem' is not key=value"),
        ("time=1h,mem=", "'mem' has no value"),
        ("12h,partition=gpu", "'12h' is not key=value"),
        ("", "'' is not key=value"),
        ("partition=gpu", "requires time"),
        ("time=4m", "leaves nothing beside the 120 s"),
    ],
)
def test_a_slip_is_named(text: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text)
    assert says in error.value.message
    assert error.value.exit_code == 2 and error.value.hint


def test_no_gpus_may_be_asked_for() -> None:
    assert parse("time=1h,gpus=0").gpus == 0
