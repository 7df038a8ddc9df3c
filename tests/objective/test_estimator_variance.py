"""The figures of ``benchmarks/estimator_variance.py``: what they estimate, and how often their intervals hold it."""

import importlib
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
benchmark = importlib.import_module("estimator_variance")
sys.path.pop(0)

FIGURES = {heading: (figure, logarithm) for heading, (figure, _, logarithm) in benchmark.COLUMNS.items()}
TRUTH = {
    "length": 8.0,
    "noise": math.sqrt(0.5 * 40 * 1.25),
    "noise / length": math.sqrt(0.5 * 40 * 1.25) / 8,
    "variance": 5.0,
    "cosine of the means": 1.0,
}


def rounds(number, generator):
    """Gradients of 40 parameters: a mean of length 8, noise that both forms share, and more of the sampled form."""
    mean = torch.zeros(40)
    mean[0] = 8.0
    exact = mean + 0.5 * torch.randn(number, 40, generator=generator)
    return exact + torch.randn(number, 40, generator=generator), exact


def estimates(number, generator):
    products = benchmark.Products.of(*rounds(number, generator), share=0.5)
    return {
        name: benchmark.with_interval(figure, products, logarithm=logarithm)
        for name, (figure, logarithm) in FIGURES.items()
    }


def test_the_figures_are_those_of_plain_sums():
    own, exact = (each.double() for each in rounds(5, torch.Generator().manual_seed(0)))
    products = benchmark.Products.of(own, exact, share=0.5)
    trace = own.var(0).sum().item()
    square = (own.mean(0) @ own.mean(0)).item() - trace / 5
    assert benchmark.length(products) == pytest.approx(math.sqrt(square))
    assert benchmark.noise(products) == pytest.approx(math.sqrt(trace / 2))
    assert benchmark.ratio(products) == pytest.approx(math.sqrt(trace / 2 / square))
    assert benchmark.variance(products) == pytest.approx(trace / exact.var(0).sum().item())
    pairs = [(own[i] @ exact[j]).item() for i in range(5) for j in range(5) if i != j]
    length = benchmark.length(benchmark.Products.of(exact, exact, share=1.0))
    assert benchmark.cosine(products) == pytest.approx(sum(pairs) / 20 / math.sqrt(square) / length)
    fewer = benchmark.Products.of(own[[0, 1, 3, 4]], exact[[0, 1, 3, 4]], share=0.5)
    assert benchmark.cosine(products.without(2)) == pytest.approx(benchmark.cosine(fewer))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    generator = torch.Generator().manual_seed(1)
    n = 200
    held = dict.fromkeys(FIGURES, 0)
    for _ in range(n):
        for name, found in estimates(12, generator).items():
            held[name] += found.interval.low <= TRUTH[name] <= found.interval.high
    # 95 % are 190, with a standard error of 3. Where a cosine is 1 its interval is too wide rather than too narrow.
    assert all(count >= 180 for count in held.values()), held
    assert all(count < n for count in held.values()), held


def test_an_interval_of_the_cosine_tells_forms_of_another_expectation_apart():
    own, exact = rounds(24, torch.Generator().manual_seed(2))
    turned = own.roll(1, dims=1) + own  # at 45 degrees
    products = benchmark.Products.of(turned, exact, share=1.0)
    found = benchmark.with_interval(benchmark.cosine, products, logarithm=False)
    assert found.interval.low < math.sqrt(0.5) < found.interval.high < 1


def test_a_mean_that_is_lost_in_noise_has_an_interval_without_end():
    own = torch.randn(4, 40, generator=torch.Generator().manual_seed(3))
    own = own - own.mean(0)
    found = benchmark.with_interval(benchmark.length, benchmark.Products.of(own, own, share=1.0), logarithm=True)
    assert (found.mean, found.interval) == (0.0, (-math.inf, math.inf))


def test_the_table_has_a_row_per_form_and_no_interval_where_a_form_is_compared_with_itself():
    gradients = {name: rounds(6, torch.Generator().manual_seed(5))[0] for name in benchmark.FORMS}
    header, _, *lines = benchmark.table(gradients, 0.5).splitlines()
    assert header == "| form | length | noise | noise / length | variance | cosine of the means |"
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(benchmark.FORMS)
    assert lines[3].endswith("| 1.0x | 1.000 |")
    assert all(" to " in cell for cell in lines[0].split(" | ")[1:])
