"""The measurements of `msdet bench` as grids of text, one function a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.reporting.tables.sections import Grid

Part = Mapping[str, Any]
SWITCHES = {
    "tf32_matmul": "TF32 matmul",
    "tf32_cudnn": "TF32 convolutions",
    "cudnn_benchmark": "cuDNN benchmark",
}


def build_grids(name: str, part: Part) -> list[Grid]:
    """Return the grids of a part; one that has no layout of its own lists its figures by name.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It does not fit the schema.
    """
    layouts = {
        "dispatch": _dispatch_grids,
        "overhead": _overhead_grids,
        "train": _train_grids,
        "inference": _inference_grids,
        "eval": _evaluation_grids,
    }
    result, measurement = part["result"], describe_measurement(part)
    if name in layouts:
        return layouts[name](result, measurement)
    return [Grid(["figure", "value"], _flat(result), title=f"{name}. {measurement}")]


def _overhead_grids(result: Part, measurement: str) -> list[Grid]:
    """Return time per iteration of each loop with the rule's own step, and the loops' ratios."""
    rows, label = [], {}
    for loop in result["loops"]:
        rule = loop["rule"]
        own = ["", ""] if rule is None else [f"{1e6 * rule['iteration_s']:.0f}", f"{100 * rule['share']:.2f}"]
        rows.append([loop["label"], format_times(loop["iteration"]), *own])
        label[loop["id"]] = loop["label"]
    ratios = [[f"{label[r['of']]} / {label[r['to']]}", *_ratio_cells(r)] for r in result["ratios"]]
    header = ["training", "ms per iteration", "rule's step, µs", "% of it"]
    times = Grid(header, rows, title=f"{_training(result)}. {measurement}")
    header = ["ratio", "of time", "of processor time"]
    return [times, Grid(header, ratios, title="Within each round, with 95 % intervals")]


def describe_loops(part: Part) -> str:
    """Return which detector each loop trained, in a sentence."""
    of: dict[str, list[str]] = {}
    for loop in part["result"]["loops"]:
        what = f"{loop['detector']} under {loop['runner']} and {loop['loop']}"
        of.setdefault(what, []).append(loop["label"])
    return "; ".join(f"{', '.join(labels)}: {what}" for what, labels in of.items()) + "."


def _inference_grids(result: Part, measurement: str) -> list[Grid]:
    """Return time of an image by neck (Fig. 4)."""
    rows = []
    for model in result["models"]:
        flops = "" if model["flops"] is None else f"{model['flops'] / 1e9:.3g}"
        row = [model["label"], f"{model['parameters'] / 1e6:.2f}", flops]
        for kind in ("model", "end_to_end"):
            found = model[f"{kind}_ratio"]
            row += [format_times(model[kind]), "" if found is None else format_ratio(found)]
        rows.append(row)
    header = ["model", "parameters, M", "multiply-adds, G", "model only, ms", "to baseline", "end to end, ms",
              "to baseline"]  # fmt: skip
    what = f"batch 1 at {_by(result['size'])}{_profile(result)}, {result['candidates']} candidates to NMS"
    rounds = f"{result['rounds']} rounds of {result['repeats']}"
    return [Grid(header, rows, title=f"{what}; {rounds}. {measurement}")]


def _evaluation_grids(result: Part, measurement: str) -> list[Grid]:
    """Return time of faster-coco-eval beside that of pycocotools."""
    rows = [
        ["faster-coco-eval", format_times(result["faster_coco_eval"], 1), ""],
        ["pycocotools", format_times(result["pycocotools"], 1), f"{result['ratio']['ratio']:.3g}"],
    ]
    what = f"{result['images']} images, {result['detections']} detections of {result['classes']} classes"
    same = f"largest difference of COCO's twelve metrics {result['largest_difference']:.1g}"
    verdict = "equal" if result["equal"] else "NOT equal"
    header = ["evaluation with", "seconds", "times as long"]
    return [Grid(header, rows, title=f"{what}; {same} ({verdict}). {measurement}")]


def _dispatch_grids(result: Part, measurement: str) -> list[Grid]:
    """Return what a step asks of the host, by recipe and rule."""
    rows = []
    for recipe, counts in result["recipes"].items():
        stock = counts["stock"]["operations"]
        for rule, count in counts.items():
            operations, *others = (str(count[key]) for key in ("operations", "waits", "allocations"))
            more = "" if rule == "stock" else f"{count['operations'] - stock:+d}"
            rows.append([recipe, rule, operations, more, *others])
    header = ["recipe", "rule", "operations", "to stock", "waits", "allocations"]
    what = f"batch {result['batch']} at {_by(result['size'])}{_profile(result)}"
    return [Grid(header, rows, 2, f"{what}. {measurement}")]


def _train_grids(results: Part, measurement: str) -> list[Grid]:
    """Return images per second of each loop, a grid for each batch."""
    header = ["training", "images per second", "ms per iteration", "times stock's", "of processor time",
              "peak memory, GB"]  # fmt: skip
    grids = []
    for result in results["batches"]:
        speeds = {"stock": ["", ""], **{found["to"]: _ratio_cells(found) for found in result["ratios"]}}
        rows = []
        for loop in result["loops"]:
            images = f"{result['batch'] / loop['iteration']['median_s']:.3g}"
            memory = "-" if loop["peak_bytes"] is None else f"{loop['peak_bytes'] / 1e9:.2f}"
            rows.append([loop["label"], images, format_times(loop["iteration"]), *speeds[loop["id"]], memory])
        grids.append(Grid(header, rows, title=f"{_training(result)}. {measurement}"))
    return grids


def describe_measurement(part: Part) -> str:
    """Return device, versions and day of a measurement."""
    environment = part["environment"]
    packages = environment["packages"]
    words = [describe_device(part), f"torch {packages['torch']}"]
    words += [f"MMDetection {packages['onedl-mmdetection']}"] if "onedl-mmdetection" in packages else []
    words += [f"operators {environment['operators']}"] if environment.get("operators") else []
    if environment.get("gpus"):
        words += [f"CUDA {environment['cuda']}", f"cuDNN {environment['cudnn']}"]
        states = {text: environment[key] for key, text in SWITCHES.items() if key in environment}
        words += [f"{text} {'on' if is_on else 'off'}" for text, is_on in states.items()]
    return ", ".join([*words, str(part["measured"])[:10]])


def describe_device(part: Part) -> str:
    """Return what a part was measured on, in words."""
    environment = part["environment"]
    threads = environment.get("cpu_threads", "?")
    cpu = f"{environment.get('cpu', 'CPU')}, {threads} thread{'' if threads == 1 else 's'}"
    return ", ".join(environment.get("gpus") or [cpu])


def format_times(times: Part, unit: float = 1000) -> str:
    """Return median and quartiles of TIMES in seconds times `unit`: `41.2 (40.9-41.8)`."""
    median, low, high = (unit * times[key] for key in ("median_s", "q1_s", "q3_s"))
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def format_ratio(ratio: Part) -> str:
    """Return a RATIO with its interval: `1.002 [0.998, 1.006]`."""
    return f"{ratio['ratio']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"


def _ratio_cells(ratio: Part) -> list[str]:
    return [format_ratio(ratio), format_ratio(ratio["cpu"]) if ratio["cpu"] else "-"]


def _profile(result: Part) -> str:
    return f" ({result['profile']})" if result["profile"] else ""


def _training(result: Part) -> str:
    """Return what was trained, and for how long."""
    what = f"{result['recipe']}{_profile(result)} on {result['dataset']}, batch {result['batch']}"
    size = f", {_by(result['size'])}" if result["size"] else ""
    rounds = f"{result['rounds']} rounds of {result['steps']} iterations, alpha {result['alpha']}"
    return f"{what}{size}; {rounds}"


def _by(size: Sequence[int]) -> str:
    return " x ".join(str(side) for side in size)


def _flat(figures: Part, prefix: str = "") -> list[list[str]]:
    """Return name and value of each figure, however nested."""
    rows = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name} ")
        else:
            rows.append([f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)])
    return rows
