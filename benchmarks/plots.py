"""The pictures in docs/img, drawn from a record."""

from pathlib import Path
from typing import Any, Final

from benchmarks import contender as c
from benchmarks.fitted import LR
from benchmarks.record import Record, middle, pick

FOLDER: Final = Path("docs/img")
_OURS, _OTHERS = "#b3123f", "#7a8794"


def draw(record: Record, folder: Path = FOLDER) -> list[Path]:
    """Draw the pictures that `record` has the figures for."""
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = (_throughput(record, folder), _latency(record, folder), _stages(record, folder))
    return [path for path in drawn if path is not None]


def _throughput(record: Record, folder: Path) -> Path | None:
    runs = record.get("throughput", [])
    cases = dict.fromkeys((one["contender"], one["chunk"]) for one in runs if one["model"] == LR)
    rates = {
        f"{name}, {chunk}": middle(runs, "rows_per_s", contender=name, model=LR, chunk=chunk)
        for name, chunk in cases
    }
    found = sorted((rate, name) for name, rate in rates.items() if rate)
    if not found:
        return None
    figure, axes = _figure(8, 0.32 * len(found) + 1)
    colors = [_OURS if name.startswith(c.WORKER.name) else _OTHERS for _, name in found]
    axes.barh([name for _, name in found], [rate for rate, _ in found], color=colors)
    axes.set_xscale("log")
    axes.set_xlabel("rows per second (log scale); logistic regression, contender and chunk size")
    return _saved(figure, folder / "throughput.png")


def _latency(record: Record, folder: Path) -> Path | None:
    runs = record.get("latency", [])
    rates = sorted({one["rate"] for one in runs})
    if not rates:
        return None
    figure, axes = _figure(7, 4)
    for one, color in ((c.WORKER, _OURS), (c.PASS_DRAIN, _OTHERS)):
        for what, line in (("p50", "-"), ("p99", "--")):
            values = [middle(runs, what, contender=one.name, rate=rate) for rate in rates]
            axes.plot(rates, values, line, marker="o", color=color, label=f"{one.name}, {what}")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("messages per second")
    axes.set_ylabel("ms until a read_committed reader has the result")
    axes.legend()
    return _saved(figure, folder / "latency.png")


def _stages(record: Record, folder: Path) -> Path | None:
    stages = pick(record.get("stages", []))
    if not stages:
        return None
    names = list(dict.fromkeys(stage for one in stages for stage in one["us"]))
    labels = [f"{one['model']}, {one['chunk']}" for one in stages]
    figure, axes = _figure(8, 0.45 * len(stages) + 1.5)
    left = [0.0] * len(stages)
    for name in names:
        values = [one["us"].get(name, 0.0) for one in stages]
        axes.barh(labels, values, left=left, label=name)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axes.set_xlabel("CPU microseconds per row")
    axes.legend(fontsize="small")
    return _saved(figure, folder / "stages.png")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")


def _saved(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return path
