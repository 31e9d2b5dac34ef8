"""The whole machine: real Dagster instances, real daemons, real processes that die."""
