"""Dagster resources: thin wrappers that open stores and the ledger from settings.

What belongs here: ConfigurableResources.  What does not: what the wrapped things do.
"""
