"""The API does what its OpenAPI description says, whatever it is sent: schemathesis makes the requests."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks
from web.stores import fill

from mergesearch.store.open import open_store
from mergesearch.types import Status
from mergesearch.web.app import create_app
from mergesearch.web.jobs import Busy
from mergesearch.web.security.tokens import hashed
from mergesearch.web.settings import Settings

TOKEN = "a-token-of-this-test-alone"
DESCRIPTION = "/api/v1/openapi.json"
BASE = "http://127.0.0.1"
KNOWN = {"name": "one", "candidate": 7, "number": 7, "chart": "front"}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.missing_required_header,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
"""Not `positive_data_acceptance`: most names are of no study."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server in this process on a store of three studies, that starts no processes: as if too many ran already."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    url = f"sqlite:///{folder}/a.db"
    store = open_store(url)
    fill(store, "one", evaluations=12, objectives=3)
    fill(store, "two", evaluations=2)
    fill(store, "three", evaluations=0, status=Status.RUNNING)
    made = create_app(Settings(url, roots=(folder,), token_hash=hashed(TOKEN)))

    def busy(*_: Any, **__: Any) -> NoReturn:
        raise Busy("as many processes run as this server starts at once; wait for one to end")

    made.state.jobs.start = made.state.jobs.check = busy
    made.state.service.streams.ending = lambda: True  # streams end after what they begin with
    yield made
    store.close()
    made.state.service.store.close()


@pytest.fixture(scope="module")
def schema(app: Any) -> Any:
    """The description, as schemathesis understands it."""
    config = schemathesis.Config.from_dict({"generation": {"deterministic": True, "allow-x00": True}})
    return schemathesis.openapi.from_asgi(DESCRIPTION, app, config=config, headers={"Host": "127.0.0.1"})


def test_every_operation_keeps_its_description(schema: Any) -> None:
    """Requests that fit and requests that do not: no error of the server, no status or body that is not described."""
    answered: Counter[str] = Counter()
    operations = [result.ok() for result in schema.get_all_operations()]
    faults = {operation.label: fault for operation in operations if (fault := _fault(operation, answered))}
    assert not faults, "\n\n".join(faults.values())
    assert len(operations) > 25
    assert answered["200"] > len(operations), "too few requests got through to what they ask for"


def _fault(operation: Any, answered: Counter[str]) -> str:
    """What an operation does that it should not; '' for nothing. Tried with odd names, and with those there are."""
    try:
        for known in ({}, KNOWN) if operation.path_parameters else ({},):
            _try(operation, known, answered)
    except FailureGroup as group:
        return f"{operation.label}: " + "\n".join(map(str, group.exceptions))
    return ""


def _try(operation: Any, known: dict[str, object], answered: Counter[str]) -> None:
    @seed(1)
    @settings(
        max_examples=5,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def requests(case: Case) -> None:
        given_ = case.path_parameters or {}
        case.path_parameters = given_ | {key: value for key, value in known.items() if key in given_}
        answer = case.call_and_validate(base_url=BASE, headers={"Authorization": f"Bearer {TOKEN}"}, checks=CHECKS)
        answered[str(answer.status_code)] += 1

    requests()


def test_operations_say_what_they_are(app: Any) -> None:
    """Each has an id of its own, a summary, a sentence or more, and problems as the bodies of its errors."""
    paths = app.openapi()["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        assert operation["summary"]
        assert operation["description"], operation["operationId"]
        assert operation["tags"], operation["operationId"]
        for status, answer in operation["responses"].items():
            assert answer["description"]
            if status[0] in "45":
                assert list(answer["content"]) == ["application/problem+json"]
