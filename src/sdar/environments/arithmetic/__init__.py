"""Arithmetic: sums, differences and products, or word problems of one's own, each in one response."""
