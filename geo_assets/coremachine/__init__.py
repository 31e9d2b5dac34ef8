"""The CoreMachine compatibility layer: workflow contracts run as Dagster asset jobs.

What belongs here: the contract, identities, the ledger, the task runner, the engine and their Dagster face.  What
does not: anything that knows geodata; a test proves that no module here imports a geodata library.

Bottom up: ``contract`` and ``identity`` (pure) → ``binding`` (a workflow class with everything needed to run it) →
``ledger`` (what is to be done, what became of it) and ``task_runner`` (tasks → outcomes) → ``engine`` (jobs through
their stages) → ``submission`` and ``dispatch`` (in and out of the queue) → ``events`` and ``asset_job`` (Dagster).
"""
