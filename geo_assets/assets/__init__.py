"""What Dagster shows beside the workflows: source assets, checks, lineage.

What belongs here: specs, groups, kinds, owners, checks.  What does not: logic longer than a screen.
"""
