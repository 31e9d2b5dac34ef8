"""PostgreSQL with PostGIS and Azurite, private to one test session.

What belongs here: finding, installing (``install``), starting and stopping the real services that tests talk to.
What does not: fixtures, which are in ``tests/conftest.py``.

A service starts when the first test asks for it (:mod:`tests.services.session`), once a session whatever the
number of xdist workers.  It is the child of a keeper process (:mod:`tests.services.keeper`) that ends with the
session, however that ends.
"""
