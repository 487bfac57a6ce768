"""The loop of a scorer: ask, score, tell, and keep the lease meanwhile."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

from mergesearch.client.values import Found, Offer, Told, Work
from mergesearch.errors import LeaseError, MergesearchError, SpecError

Function: TypeAlias = Callable[[Offer], Found | Mapping[str, Any]]

WAIT_SECONDS: Final = 20.0
_IDLE: Final = 1.0  # seconds between asks of a study that offers nothing and has no controller

_LOG = logging.getLogger(__name__)


class Asking(Protocol):
    """What the loop wants of a client."""

    def ask(self, name: str, worker: str, count: int = 1, wait_seconds: float = 0.0) -> Work: ...
    def tell(self, name: str, offer: Offer, found: Found | Mapping[str, Any]) -> Told: ...
    def tell_failed(self, name: str, offer: Offer, kind: str, message: str = "") -> Told: ...
    def renew(self, name: str, offer: Offer, seconds: float | None = None) -> float: ...


def score_until_over(client: Asking, name: str, function: Function, worker: str, count: int) -> int:
    """See `Client.work`."""
    who, told = worker or f"{socket.gethostname()}:{os.getpid()}", 0
    while True:
        work = client.ask(name, who, count, WAIT_SECONDS)
        if work.over and not work.offers:
            return told
        if not work.offers and not work.runs:
            time.sleep(_IDLE)
        with _kept(client, name, work.offers) as done:
            for offer in work.offers:
                told += _score(client, name, function, offer)
                done(offer)


def _score(client: Asking, name: str, function: Function, offer: Offer) -> bool:
    """Whether what came of one offer was told first."""
    began = time.perf_counter()
    try:
        given = function(offer)
        found = given if isinstance(given, Found) else Found(given)
        if found.seconds is None:
            spent = time.perf_counter() - began
            found = Found(found.scores, found.metrics, found.examples, found.gradients, spent)
    except Exception as error:  # noqa: BLE001 - whatever a scorer raises is this candidate's failure
        kind, why = type(error).__name__, _line(error)
        return _tell(offer, lambda: client.tell_failed(name, offer, kind, why))
    try:
        return _tell(offer, lambda: client.tell(name, offer, found))
    except (SpecError, TypeError, ValueError) as error:  # a score that is no number, not finite, or of no objective
        why = _line(error)
        return _tell(offer, lambda: client.tell_failed(name, offer, "refused", why))


def _tell(offer: Offer, tell: Callable[[], Told]) -> bool:
    try:
        return not tell().again
    except LeaseError as error:
        _LOG.warning("offer %s: %s", offer.offer, error)
        return False


@contextmanager
def _kept(client: Asking, name: str, offers: Sequence[Offer]) -> Iterator[Callable[[Offer], None]]:
    """Renew all leases every third of their length, each until the given function says that it is done."""
    if not offers:
        yield lambda _: None
        return
    left, stop, lock = {offer.offer: offer for offer in offers}, threading.Event(), threading.Lock()

    def renew() -> None:
        while not stop.wait(min(offer.seconds for offer in offers) / 3):
            with lock:
                held = list(left.values())
            for offer in held:
                try:
                    client.renew(name, offer)
                except MergesearchError as error:  # what is found is told all the same
                    _LOG.debug("offer %s: not renewed: %s", offer.offer, error)

    def done(offer: Offer) -> None:
        with lock:
            left.pop(offer.offer, None)

    thread = threading.Thread(target=renew, name=f"leases of {name}", daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:2000]
