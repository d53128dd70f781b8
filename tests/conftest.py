"""What all tests share. The environment is set before torch is imported: spinning threads slow down everything.

Tests compare bits, and those of a CPU: GPUs are hidden from all but `make test-gpu`.
"""

import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True, scope="module")
def no_logger_of_an_earlier_training() -> Iterator[None]:
    """MMEngine's current logger stays that of the last training, whose log file is closed by then."""
    if "mmengine.logging" in sys.modules:
        from mmengine.logging import MMLogger

        MMLogger._instance_dict.clear()
    yield
