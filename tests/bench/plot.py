"""The figures as a picture: rows a second of each way, and where the product's processor time goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.stages import STAGES

__all__ = ["plot"]

_SHADES = ("#2f6f4f", "#4f8f6f")
_NARROWEST = 0.05  # the part of all seconds that has room for a name


def plot(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw ``speed.png`` and ``speed.svg``.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "momento-etl"  # the same figures, the same file
    from matplotlib import pyplot as plt

    ways = list(document["compare"]["ways"].values())[::-1]
    stages = [stage for stage in STAGES if stage != "sign"]  # a part of writing
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 4.6), height_ratios=(len(ways), 1.2))
    speeds = [way["rows_per_second"] for way in ways]
    spread = [
        [way["rows_per_second"] - way["slowest"] for way in ways],
        [way["fastest"] - way["rows_per_second"] for way in ways],
    ]
    colours = ["#9aa5b1"] * (len(ways) - 1) + ["#2f6f4f"]
    bars = above.barh([way["label"] for way in ways], speeds, xerr=spread, color=colours, ecolor="#333333", capsize=2)
    above.bar_label(bars, labels=[f"{speed:,.0f}" for speed in speeds], padding=8)
    above.set_xscale("log")
    above.set_xlim(10, max(speeds) * 6)
    above.set_title("rows a second (log scale)", loc="left", fontsize=10)
    taken = {stage: document["stages"]["stages"][stage]["cpu_seconds_per_100k"] for stage in stages}
    start = 0.0
    for number, (stage, seconds) in enumerate(taken.items()):
        below.barh([""], [seconds], left=start, color=_SHADES[number % len(_SHADES)])
        if seconds > _NARROWEST * sum(taken.values()):
            below.text(start + seconds / 2, 0, stage, ha="center", va="center", color="white", fontsize=8)
        start += seconds
    below.set_title("its processor seconds per 100,000 rows, stage by stage", loc="left", fontsize=10)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    paths = [folder / "speed.png", folder / "speed.svg"]
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return paths
