"""Every route of the API as a method."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, final
from urllib.parse import quote

from mergesearch.client.http import Http
from mergesearch.client.scoring import Function, score_until_over
from mergesearch.client.values import Event, Found, Offer, Told, Work

Json = Mapping[str, Any]


@final
class Client:
    """One server. Answers are its JSON as plain values, as its OpenAPI description has them, where no other type is
    said; threads may share a client.

    Args:
        url: 'http://127.0.0.1:8790'. token: the one that `mergesearch serve` said; without it a server on this
            machine can be read and nothing changed.
        patience: seconds that a server which does not answer is waited for, such as one that is started again.

    Every method raises our errors with the server's sentence: StudyNotFound, NotOffered (an offer or a token that is
    none), LeaseError (something else is going on: 409), SpecError (the request does not fit, or needs the token),
    StoreError (the server or its store is away), MergesearchError for all else.
    """

    def __init__(  # nosec B107  # no token is none
        self, url: str, token: str = "", *, patience: float = 5.0, timeout: float = 60.0
    ) -> None:
        self._http = Http(url, token, patience, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def studies(self) -> Any:
        """All studies of the store."""
        return self._http.json("GET", "/studies")

    def study(self, name: str) -> Any:
        """One study: how it stands, its objectives, its best."""
        return self._http.json("GET", _of(name))

    def candidates(self, name: str, *, offset: int | None = None, limit: int | None = None, **filters: Any) -> Any:
        """A page of a study's candidates; `filters` as in the API: sort, order, split, origin, status, front."""
        return self._http.json("GET", f"{_of(name)}/candidates", offset=offset, limit=limit, **filters)

    def candidate(self, name: str, number: int) -> Any:
        """Everything known of one candidate."""
        return self._http.json("GET", f"{_of(name)}/candidates/{number}")

    def front(self, name: str, **choice: Any) -> Any:
        """The front; `choice` as in the API: objectives, split, prefer."""
        return self._http.json("GET", f"{_of(name)}/front", **choice)

    def failures(self, name: str, **page: Any) -> Any:
        """The evaluations that failed, with why."""
        return self._http.json("GET", f"{_of(name)}/failures", **page)

    def log(self, name: str, **page: Any) -> Any:
        """The log's lines."""
        return self._http.json("GET", f"{_of(name)}/log", **page)

    def chart(self, name: str, chart: str, **options: Any) -> Any:
        """The data and layout of a chart, for Plotly."""
        return self._http.json("GET", f"{_of(name)}/charts/{quote(chart, safe='')}", **options)

    def compare(self, names: Sequence[str]) -> Any:
        """Several studies beside each other."""
        return self._http.json("GET", "/compare", study=list(names))

    def events(self, name: str) -> Iterator[Event]:
        """The study's messages as they come: 'changed' with how it stands, 'log' with new lines. Ends with the
        server's stream; raises StoreError where the connection breaks."""
        return self._http.stream(f"{_of(name)}/events")

    def recipe(self, name: str, number: int) -> str:
        """A candidate's recipe.yaml."""
        return self._http.call("GET", f"{_of(name)}/candidates/{number}/recipe.yaml").text

    def mergekit(self, name: str, number: int) -> str:
        """A candidate's recipe as a configuration of mergekit."""
        return self._http.call("GET", f"{_of(name)}/candidates/{number}/mergekit.yaml").text

    def store(self) -> Any:
        """How the store is: its kind, schema and size."""
        return self._http.json("GET", "/store")

    def health(self) -> Any:
        """Whether the server and its store answer."""
        return self._http.json("GET", "/health")

    def metrics(self) -> str:
        """The server's metrics, as Prometheus reads them."""
        return self._http.call("GET", "/metrics").text

    def check(self, text: str) -> Any:
        """What a check of a study file's text finds."""
        return self._http.json("POST", "/check", {"text": text})

    def launch(self, text: str, profile: str = "") -> Any:
        """Launch the study of a file's text on the server, with a workers profile of those it offers."""
        return self._http.json("POST", "/studies", {"text": text, "profile": profile})

    def pause(self, name: str) -> Any:
        """Ask a study's controller to pause."""
        return self._http.json("POST", f"{_of(name)}/pause")

    def cancel(self, name: str) -> Any:
        """Ask a study's controller to stop."""
        return self._http.json("POST", f"{_of(name)}/cancel")

    def resume(self, name: str, **raised: Any) -> Any:
        """Go on with a study, with a raised budget and a profile if they are given, as in the API."""
        return self._http.json("POST", f"{_of(name)}/resume", raised)

    def score(self, name: str, number: int, **body: Any) -> Any:
        """Score a candidate once more, on the server."""
        return self._http.json("POST", f"{_of(name)}/candidates/{number}/score", body)

    def export(self, name: str, number: int, **body: Any) -> Any:
        """Write a candidate's checkpoint, on the server."""
        return self._http.json("POST", f"{_of(name)}/candidates/{number}/export", body)

    def jobs(self) -> Any:
        """What the server was asked to do, and how that stands."""
        return self._http.json("GET", "/jobs")

    def job(self, job: str) -> Any:
        """One of them, with the end of its log."""
        return self._http.json("GET", f"/jobs/{quote(job, safe='')}")

    def ask(self, name: str, worker: str, count: int = 1, wait_seconds: float = 0.0) -> Work:
        """Lease up to `count` candidates to score, waiting for the first up to 20 seconds."""
        asked = {"worker": worker, "count": count, "wait_seconds": wait_seconds}
        body = self._http.json("POST", f"{_of(name)}/ask", asked)
        return Work(tuple(map(Offer.of, body["offers"])), body["status"], body["runs"], body["over"])

    def tell(self, name: str, offer: Offer, found: Found | Mapping[str, Any]) -> Told:
        """Tell scores. Raises LeaseError if other ones were told before; these are kept beside them."""
        given = found if isinstance(found, Found) else Found(found)
        body = {"scores": _plain(given.scores), "metrics": _plain(given.metrics)}
        arrays = {"examples": given.examples, "gradients": given.gradients}
        body |= {key: {name: [float(x) for x in v] for name, v in named.items()} for key, named in arrays.items()}
        return self._told(name, offer, {**body, "seconds": given.seconds})

    def tell_failed(self, name: str, offer: Offer, kind: str, message: str = "") -> Told:
        """Tell that a candidate could not be scored."""
        return self._told(name, offer, {"failed": {"kind": kind[:100] or "Error", "message": message[:2000]}})

    def renew(self, name: str, offer: Offer, seconds: float | None = None) -> float:
        """Prolong a lease; until when it runs now. Raises LeaseError if it was told, or another has it."""
        body = {"offer": offer.offer, "token": offer.token, "seconds": seconds}
        return float(self._http.json("POST", f"{_of(name)}/renew", body)["until"])

    def work_of(self, name: str) -> Any:
        """How many offers are open, leased and told, and who holds what."""
        return self._http.json("GET", f"{_of(name)}/work")

    def work(self, name: str, function: Function, worker: str = "", *, count: int = 1) -> int:
        """Ask, score and tell until the study is over; returns how many evaluations were told.

        Args:
            function: an offer -> its scores, or a `Found`. If it raises, the candidate has failed.
            worker: who scores, for the log; this machine and process unless given.
            count: offers to lease at once, scored one after the other.

        Leases are renewed while `function` runs. What another told first is left to it.
        """
        return score_until_over(self, name, function, worker, count)

    def _told(self, name: str, offer: Offer, body: Json) -> Told:
        told = self._http.json("POST", f"{_of(name)}/tell", {"offer": offer.offer, "token": offer.token, **body})
        return Told(told["offer"], told["again"])


def _of(name: str) -> str:
    return f"/studies/{quote(name, safe='')}"


def _plain(value: Any) -> Any:
    """Numbers of numpy and others as plain ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, int) and not isinstance(value, bool) else float(value)
