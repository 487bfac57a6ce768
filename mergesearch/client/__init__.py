"""A client of `mergesearch serve`: every route of its API as a method, and a loop for scorers written in Python.

>>> from mergesearch.client import Client
>>> with Client("http://127.0.0.1:8790", token) as client:  # doctest: +SKIP
...     client.work("external", lambda offer: {"accuracy": 0.5, "seconds": offer.values["depth"]})
"""

from mergesearch.client.api import Client
from mergesearch.client.values import Found, Offer, Told, Work

__all__ = ["Client", "Found", "Offer", "Told", "Work"]
