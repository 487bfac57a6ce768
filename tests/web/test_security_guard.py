"""Nobody changes anything without the token, no other site can have it done, and no answer gives the server away."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from web.inside import HERE, TOKEN, inside
from web.stores import fill

from mergesearch.errors import SpecError
from mergesearch.store.open import open_store
from mergesearch.web.app import create_app
from mergesearch.web.security.guard import CSRF_HEADER
from mergesearch.web.security.sessions import SESSION_SECONDS
from mergesearch.web.security.tokens import hashed
from mergesearch.web.settings import Settings

PAUSE = "/api/v1/studies/mine/pause"
SESSION = "/api/v1/session"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/a.db"
    opened = open_store(url)
    fill(opened, "mine", evaluations=8)
    opened.close()
    return url


@pytest.fixture
def client(store: str, tmp_path: Path) -> Iterator[TestClient]:
    with inside(store, tmp_path, signed=False) as made:
        yield made


def signed_in(client: TestClient) -> str:
    """The CSRF token of a session that the client's cookie has from now on."""
    return str(client.post(SESSION, json={"token": TOKEN}).json()["csrf"])


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\u00fc" * 40, hashed(TOKEN)])
def test_a_bad_token_changes_nothing(client: TestClient, token: str) -> None:
    """Neither a part of the token nor its hash is enough."""
    answer = client.post(PAUSE, headers={"Authorization": f"Bearer {token}".encode()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


def test_every_change_needs_the_token(client: TestClient) -> None:
    """Whatever the API describes: without the token no method but reading gets past 401."""
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    tried = 0
    for path, methods in paths.items():
        for method in methods:
            if method in ("get", "head", "options") or (path, method) == (SESSION, "post"):
                continue
            where = path.replace("{name}", "mine").replace("{number}", "1").replace("{job}", "x")
            assert client.request(method, where, json={}).status_code == 401, (method, path)
            tried += 1
    assert tried >= 8


def test_the_right_token_is_let_through(client: TestClient) -> None:
    """409: the study is done, so there is nothing to pause; the guard had no objection."""
    assert client.post(PAUSE, headers={"Authorization": f"bearer {TOKEN}"}).status_code == 409


def test_two_people_who_pause_at_once_ask_once(tmp_path: Path) -> None:
    """The second is told that it was asked already; a study that nobody works on is a conflict."""
    url = f"sqlite:///{tmp_path}/b.db"
    opened = open_store(url)
    fill(opened, "mine", evaluations=2)
    lease = opened.acquire("mine", "elsewhere:1:1:test", 600.0)
    with inside(url, tmp_path) as client:
        first, second = client.post(PAUSE), client.post(PAUSE)
        assert (first.status_code, second.status_code) == (202, 202)
        assert (first.json()["asked"], second.json()["asked"]) == (True, False)
        assert "already" in second.json()["sentence"]
        assert [command.action for command in opened.open_commands("mine")] == ["pause"]
        opened.release(lease)
        assert client.post(PAUSE).status_code == 409
    opened.close()


def test_a_page_needs_its_csrf_token_and_its_own_site(client: TestClient) -> None:
    """The cookie alone, which a browser sends along by itself, is not enough."""
    csrf = signed_in(client)
    assert client.post(PAUSE).status_code == 403
    assert client.post(PAUSE, headers={CSRF_HEADER: csrf[::-1]}).status_code == 403
    assert client.post(PAUSE, headers={CSRF_HEADER: csrf}).status_code == 409
    for name, value in (
        ("Origin", "http://evil.example"), ("Origin", "null"), ("Origin", "http://127.0.0.1:9999"),
        ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"),
    ):  # fmt: skip
        assert client.post(PAUSE, headers={CSRF_HEADER: csrf, name: value}).status_code == 403, (name, value)
        assert client.post(SESSION, json={"token": TOKEN}, headers={name: value}).status_code == 403
    same = {CSRF_HEADER: csrf, "Origin": HERE, "Sec-Fetch-Site": "same-origin"}
    assert client.post(PAUSE, headers=same).status_code == 409


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client: TestClient) -> None:
    """HttpOnly, SameSite=Strict, and Secure where the page came over TLS."""
    said = client.post(SESSION, json={"token": TOKEN}).headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "secure" not in said
    client.base_url = client.base_url.copy_with(scheme="https")
    assert "secure" in client.post(SESSION, json={"token": TOKEN}).headers["set-cookie"].lower()


def test_a_session_ends_by_itself_and_by_signing_out(client: TestClient) -> None:
    """An old session is none, and neither is one that was ended."""
    clock = client.app.state.security.sessions  # type: ignore[attr-defined]
    csrf = signed_in(client)
    began = clock.clock
    clock.clock = lambda: began() + SESSION_SECONDS + 1
    assert client.post(PAUSE, headers={CSRF_HEADER: csrf}).status_code == 401
    clock.clock = began
    assert client.post(PAUSE, headers={CSRF_HEADER: csrf}).status_code == 409
    cookies = dict(client.cookies)
    assert client.delete(SESSION, headers={CSRF_HEADER: csrf}).status_code == 204
    client.cookies.update(cookies)
    assert client.post(PAUSE, headers={CSRF_HEADER: csrf}).status_code == 401


def test_a_restarted_server_knows_no_session_but_the_token(store: str, tmp_path: Path) -> None:
    """A cookie of before means nothing to it."""
    with inside(store, tmp_path, signed=False) as first:
        csrf, cookies = signed_in(first), dict(first.cookies)
    with inside(store, tmp_path, signed=False) as second:
        second.cookies.update(cookies)
        assert second.post(PAUSE, headers={CSRF_HEADER: csrf}).status_code == 401
        assert second.post(SESSION, json={"token": TOKEN}).status_code == 200


def test_guessing_is_slowed_down_for_one_and_for_all(client: TestClient) -> None:
    """After five wrong tokens even the right one waits, and the answer says for how long; nobody sleeps."""
    failures = client.app.state.security.failures  # type: ignore[attr-defined]
    for _ in range(5):
        assert client.post(SESSION, json={"token": "wrong"}).status_code == 401
    answer = client.post(SESSION, json={"token": TOKEN})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert failures.wait("another") == 0
    for i in range(60):
        failures.count(f"client {i}")
    assert failures.wait("client 7") > 0
    assert failures.wait("another") == 0, "whoever guesses from many places must not keep the owner out"
    began = failures.clock
    failures.clock = lambda: began() + 61
    assert client.post(SESSION, json={"token": TOKEN}).status_code == 200


def test_a_name_that_was_pointed_at_this_machine_is_refused(client: TestClient) -> None:
    """DNS rebinding: a page of another site reaches the server under that site's name."""
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8790", "", "[::1"):
        assert client.get("/", headers={"Host": host}).status_code == 421, host
    for host in ("localhost:8790", "127.0.0.1", "[::1]:8790", "mine.localhost"):
        assert client.get("/login", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize("settings", [{"host": "0.0.0.0"}, {"names": ("merge.example",)}])
def test_whoever_comes_from_another_machine_shows_the_token_first(
    store: str, tmp_path: Path, settings: dict[str, object]
) -> None:
    """Pages send to the login and back, the API says what it needs; files without content of anybody's are free."""
    with inside(store, tmp_path, signed=False, **settings) as client:
        page = client.get("/studies/mine?x=1&y=2", follow_redirects=False)
        assert (page.status_code, page.headers["location"]) == (303, "/login?next=%2Fstudies%2Fmine%3Fx%3D1%26y%3D2")
        for path in ("/api/v1/studies", "/api/v1/openapi.json", "/api/v1/metrics", "/api/v1/jobs"):
            assert client.get(path).status_code == 401, path
        for path in ("/login", "/static/style.css", "/api/v1/health"):
            assert client.get(path).status_code == 200, path
        assert client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        signed_in(client)
        assert client.get("/api/v1/jobs").status_code == 200


def test_a_server_for_other_machines_without_a_token_cannot_be(tmp_path: Path) -> None:
    """It does not even start."""
    with pytest.raises(SpecError, match="needs a token"):
        create_app(Settings(f"sqlite:///{tmp_path}/a.db", host="0.0.0.0"))


def test_without_a_token_nothing_can_be_changed(store: str, tmp_path: Path) -> None:
    """The hash of nothing matches no token."""
    app = create_app(Settings(store, roots=(tmp_path,)))
    with TestClient(app, HERE) as client:
        for token in ("", " ", "x"):
            assert client.post(PAUSE, headers={"Authorization": f"Bearer {token}"}).status_code == 401
        assert client.post(SESSION, json={"token": "x"}).status_code == 401


def test_every_answer_has_its_headers(client: TestClient) -> None:
    """Pages, API, files, refusals and errors alike; no script or style stands in a page."""
    for path in ("/login", "/launch", "/api/v1/jobs", "/static/post.js", "/nothing", "/api/v1/studies/none"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe-eval" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        if not path.startswith("/static/"):
            assert headers["cache-control"] == "no-store"
    assert "content-security-policy" in client.post(PAUSE).headers


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: TestClient) -> None:
    """By what it says of its length, and by counting where it says nothing; signing in takes less than the rest."""
    signed = {"Authorization": f"Bearer {TOKEN}"}
    assert client.post("/api/v1/check", content=b"x" * 1_000_001, headers=signed).status_code == 413
    chunks = (b'{"text": "' if i == 0 else b"x" * 100_000 for i in range(20))
    assert client.post("/api/v1/check", content=chunks, headers=signed).status_code == 413
    assert client.post(SESSION, content=b"x" * 5000).status_code == 413
    assert client.post(SESSION, content=(b"x" * 1000 for _ in range(9))).status_code == 413


def test_the_path_of_a_file_leads_nowhere_else(client: TestClient) -> None:
    """Neither '..' nor its encodings leave the folder of static files."""
    for path in ("/static/../settings.py", "/static/%2e%2e/settings.py", "/static/..%2fsettings.py",
                 "/static/....//settings.py", "/static//etc/passwd", "/static/%00"):  # fmt: skip
        assert client.get(path).status_code in (400, 404), path


def test_an_error_of_the_server_says_nothing_of_it(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A 500 is a problem with all headers, without a stack trace, a path or a secret; ours are without paths too."""
    router = APIRouter()

    @router.get("/api/v1/broken")
    def broken() -> None:
        raise RuntimeError(f"secret {TOKEN} in {tmp_path}")

    @router.get("/api/v1/ours")
    def ours() -> None:
        raise SpecError(f"model folder '{tmp_path.resolve()}/runs/base' is missing, see /usr/lib/python3/x.py")

    with inside(store, tmp_path) as client:
        client.app.include_router(router)  # type: ignore[attr-defined]
        answer = client.get("/api/v1/broken")
        assert answer.status_code == 500
        assert "nosniff" in answer.headers["x-content-type-options"]
        assert json.loads(answer.text)["detail"] == "an error of the server; its log says more"
        assert "Traceback" not in answer.text
        said = client.get("/api/v1/ours").json()["detail"]
        assert said == "model folder 'runs/base' is missing, see …/x.py"


def test_a_websocket_is_refused(client: TestClient) -> None:
    """There is none, so none is opened."""
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://127.0.0.1/api/v1/studies"):
        pass


def test_the_server_starts_without_torch_ray_or_transformers() -> None:
    """Nothing that is slow to import or builds models gets into the process that faces the network."""
    code = (
        "import sys, tempfile; from pathlib import Path; from mergesearch.web.app import create_app; "
        "from mergesearch.web.settings import Settings; f = tempfile.mkdtemp(); "
        "create_app(Settings(f'sqlite:///{f}/a.db', roots=(Path(f),))); "
        "print([m for m in ('torch', 'ray', 'transformers', 'matplotlib', 'pandas', 'numba') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stdout + done.stderr
