"""Named sums over all ranks that become means, deviations, totals and maxima."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric


class MetricSums(Metric):
    """Named sums that become means, standard deviations, totals and maxima when computed, over all ranks.

    Every rank must add to the same names in the same order, with a count of 0 where it has nothing to count: the ranks'
    sums are added row by row.
    """

    full_state_update = False
    sums: Tensor
    peaks: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(0, 3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("peaks", torch.zeros(0, dtype=torch.float64), dist_reduce_fx="max")
        self._sum_rows: dict[str, int] = {}
        self._peak_rows: dict[str, int] = {}
        self._totals: set[str] = set()
        self._spreads: set[str] = set()

    def mean(self, name: str, total: float, count: float) -> None:
        """Add ``count`` observations whose sum is ``total`` to a mean."""
        self.update({name: (total, count, 0.0)})

    def means(self, figures: Mapping[str, tuple[float, float]]) -> None:
        """Add to several means at once: sum and number of observations by name."""
        self.update({name: (total, count, 0.0) for name, (total, count) in figures.items()})

    def spread(self, name: str, squares: float) -> None:
        """Add to the sum of squares of a mean ``.../x_mean``, which gives ``.../x_std`` (over all, divided by n)."""
        self._spreads.add(name)
        self.update({name: (0.0, 0.0, squares)})

    def total(self, name: str, value: float) -> None:
        """Add to a sum that is not divided by anything."""
        self._totals.add(name)
        self.update({name: (value, 0.0, 0.0)})

    def maximum(self, name: str, value: float) -> None:
        """Note a value of which the largest counts; -inf where there is none."""
        self.update(peaks={name: value})

    def update(
        self, sums: Mapping[str, tuple[float, float, float]] | None = None, peaks: Mapping[str, float] | None = None
    ) -> None:
        """Add to the rows of some names - sum, count, sum of squares - and to peaks; see the methods above."""
        for name, peak in (peaks or {}).items():
            row = self._peak_rows.setdefault(name, len(self._peak_rows))
            if row == len(self.peaks):
                self.peaks = torch.cat([self.peaks, self.peaks.new_full((1,), -math.inf)])
            self.peaks[row] = max(float(self.peaks[row]), peak)
        if sums:
            rows = [self._sum_rows.setdefault(name, len(self._sum_rows)) for name in sums]
            missing = len(self._sum_rows) - len(self.sums)
            if missing:
                self.sums = torch.cat([self.sums, self.sums.new_zeros(missing, 3)])
            self.sums.index_add_(0, torch.tensor(rows), torch.tensor(list(sums.values()), dtype=torch.float64))

    def compute(self) -> dict[str, float]:
        """All metrics. A mean or a maximum of nothing is left out: it is not 0."""
        sums, peaks = self.sums.tolist(), self.peaks.tolist()
        metrics: dict[str, float] = {}
        for name, row in self._sum_rows.items():
            total, count, squares = sums[row]
            if name in self._totals:
                metrics[name] = total
            elif count > 0:
                metrics[name] = total / count
                if name in self._spreads:
                    variance = squares / count - metrics[name] ** 2
                    metrics[name.removesuffix("_mean") + "_std"] = math.sqrt(max(variance, 0.0))
        return metrics | {name: peaks[row] for name, row in self._peak_rows.items() if peaks[row] > -math.inf}
