"""One picture of a soak: payments a second, what struck, and money that is nobody's yet, over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
import numpy

from benchmarks.payments_judging import Classified

matplotlib.use("Agg")  # no screen is needed

from matplotlib import pyplot  # noqa: E402

_COLOURS: Final = {"shard": "#D55E00", "gateway": "#0072B2", "postgres": "#000000"}


def draw(file: Path, began: float, classified: Classified, kills: Sequence[tuple[str, float]]) -> None:
    """Times are time.time(); `kills` are what and when."""
    paid = numpy.array(sorted(at for at, _, _ in classified.moments)) - began
    ends = max((known for _, known, _ in classified.moments), default=began) - began + 1
    seconds = numpy.arange(0, int(ends) + 2)
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(11, 6.5), layout="constrained")
    above.stairs(numpy.histogram(paid, bins=seconds)[0], seconds, fill=True, color="#009E73", alpha=0.7)
    above.set_ylabel("payments a second")
    changes = sorted(
        [(at - began, fen) for at, _, fen in classified.moments]
        + [(known - began, -fen) for _, known, fen in classified.moments]
    )
    below.step(
        [at for at, _ in changes],
        numpy.cumsum([fen for _, fen in changes]) / 100 if changes else [],
        where="post",
        color="#56B4E9",
    )
    below.set_ylabel("yuan paid, not yet in the ledger")
    below.set_xlabel("seconds")
    below.set_ylim(bottom=0)
    said: set[str] = set()
    for what, at in kills:
        for axes in (above, below):
            label = what if axes is above and what not in said else None
            axes.axvline(at - began, color=_COLOURS[what], linestyle="--", linewidth=1, label=label)
        said.add(what)
    if said:
        above.legend(title="killed", loc="upper right")
    above.set_title(f"{len(paid)} payments, {len(kills)} kills")
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
