"""The picture of a sweep: throughput and latency against chunk size."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from broker.errors import SettingsError
from real_time.sweep import ChunkCost, knee, recommendation

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#777777"  # distinct also for the colour-blind
_WIDTH: Final = 80  # characters per line of the title


def require_plot(path: Path) -> None:
    """Check that a plot can be drawn and written to `path`.

    Raises:
        SettingsError: matplotlib is not installed, or `path` can't be such a file.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SettingsError("--plot needs matplotlib: run pip install 'matplotlib>=3.9'") from None
    if path.suffix.lower() != ".png":
        raise SettingsError(f"--plot: {path} must end in .png")
    if not path.parent.is_dir():
        raise SettingsError(f"--plot: there is no directory {path.parent}")


def draw(path: Path, costs: Sequence[ChunkCost], *, throughput: str, plain: Sequence[ChunkCost] = ()) -> None:
    """Write the plot; `throughput` labels the rate, and `plain` holds the costs of the model's own predict_proba.

    Raises:
        SettingsError: `path` can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(textwrap.fill(recommendation(costs), _WIDTH), fontsize=11)
    _line(above, costs, "throughput", color=_BLUE, label=throughput)
    if plain:
        _line(above, plain, "throughput", color=_GREY, label="plain predict_proba", linestyle="--")
    above.set_ylabel("rows/s")
    above.set_ylim(bottom=0)
    above.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _line(below, costs, "chunk_ms_p99", color=_ORANGE, label="p99")
    _line(below, costs, "chunk_ms_p50", color=_BLUE, label="p50")
    below.set_ylabel("ms of scoring a chunk")
    below.set_yscale("log")
    below.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    below.set_xlabel("chunk size (rows)")
    below.set_xscale("log")
    sizes = [cost.chunk_size for cost in costs]
    below.set_xticks(sizes, [f"{size:,}" for size in sizes])
    below.minorticks_off()
    for axes in (above, below):
        _mark(axes, knee(costs).chunk_size)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise SettingsError(f"--plot: cannot write {path}: {error.strerror}") from None


def _line(axes: Any, costs: Sequence[ChunkCost], name: str, **style: Any) -> None:
    x = [cost.chunk_size for cost in costs]
    axes.plot(x, [getattr(cost, name) for cost in costs], marker="o", **style)


def _mark(axes: Any, size: int) -> None:
    axes.axvline(size, color=_GREY, linewidth=1, linestyle=":", label=f"knee: {size:,}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=9)
