"""The tests. Fixtures are in ``conftest.py``, the services they start in ``services``."""
