"""The pieces of :mod:`geo_assets.reconcile`: what the ledger says, what the stores say, and what is done about it.

What belongs here: ``findings`` (the answer), ``recorded`` (the ledger's side), ``looks`` (the stores' side),
``compare`` (both side by side), ``judge`` (each difference looked at once more), ``wording``, ``source_entries``,
``repairing``.  What does not: Dagster, which is handed in.
"""
