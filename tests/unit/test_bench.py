"""What `msdet bench` measures with, on the CPU and scaled down; the figures themselves are nobody's test."""

import pytest

from benchmarks import gpu, overhead
from experiments.errors import UserError
from msdet_cli.bench import bench


def test_a_step_of_a_recipe_and_two_in_turns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = dict(profile="tiny", batch_size=1, size=(160, 96), device="cpu")
    found = gpu.measure(["fcos-r50-rlo", "retinanet-r50-guided"], iterations=2, **small)
    assert list(found["one step"]) == ["fcos-r50-rlo", "retinanet-r50-guided"]
    for figures in found["one step"].values():
        assert figures["seconds, the first"] > 0 and figures["loss"] > 0
    turns = found["retinanet-r50"]
    expected = turns["rlo, seconds per iteration"] / turns["baseline, seconds per iteration"]
    assert turns["rlo to baseline"]["ratio"] == pytest.approx(expected)  # one block of each


@pytest.mark.slow
def test_overhead_tells_all_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = overhead.measure(rounds=2, steps=1, batch_size=1)
    assert {name for name in found if name.endswith(" ms")} == {"stock ms", "uniform ms", "avw ms", "rlo ms"}
    assert found["rlo finish_step"]["us per iteration"] > 0


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU") as caught:
        bench(["gpu"])
    assert caught.value.exit_code == 2
