"""Benchmarks: each module measures ratios in one run, and asserts equal results before it prints one.

``scripts/bench`` runs the modules here whose names do not begin with an underscore.
"""
