"""The scripts of workflows/ on real processes: local, by SSH, on a cluster of somebody else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import streamgmm
from streamgmm.errors import SchedulerError
from streamgmm.passes import connect
from tests.daemons import (
    ROOT,
    dask_cluster,
    find,
    flat,
    script,
    sshd,
    write_certificates,
)

WORKFLOWS = ROOT / "workflows"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("data") / "x.zarr")
    X = np.random.default_rng(0).normal(size=(40_000, 4)) + np.arange(2).repeat(20_000)[:, None]
    zarr.create_array(path, data=X, chunks=(2_000, 4))
    return path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory, tls: dict[str, str]) -> Iterator[str]:
    with dask_cluster(tmp_path_factory.mktemp("hosted"), tls) as address:
        yield address


def check_model(out: Path, data: str) -> None:
    """The model is that of a fit in this process, to the last bit."""
    here = streamgmm.GaussianMixture(2, random_state=0, n_jobs=1).fit(data)
    there = streamgmm.load(str(out))
    for name in ("weights_", "means_", "covariances_"):
        assert getattr(here, name).tobytes() == getattr(there, name).tobytes()


def test_local_with_tls(data: str, tmp_path: Path) -> None:
    out = tmp_path / "model.zarr"
    said = script("local_cluster", data, "-k", "2", "--out", str(out), "--seed", "0", "--tls")
    assert "scheduler tls://127.0.0.1" in said
    check_model(out, data)


def test_a_hosted_scheduler_with_tls(
    hosted: str, data: str, tls: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "model.zarr"
    fit = [hosted, data, "-k", "2", "--out", str(out), "--seed", "0", "--timeout", "60"]
    said = script("hosted_scheduler", *fit, *flat(tls))
    assert f"streamgmm {streamgmm.__version__} on " in said
    check_model(out, data)


def test_strangers_are_refused(hosted: str, tls: dict[str, str], tmp_path: Path) -> None:
    from distributed.security import Security

    port = hosted.rpartition(":")[2]
    with pytest.raises(SchedulerError, match=rf"'tcp://127.0.0.1:{port}' within 2 s"):
        connect(f"tcp://127.0.0.1:{port}", timeout=2)
    other = write_certificates(tmp_path)
    security = Security(
        tls_ca_file=tls["--tls-ca"],
        tls_client_cert=other["--tls-cert"],
        tls_client_key=other["--tls-key"],
        require_encryption=True,
    )
    with pytest.raises(SchedulerError, match="no scheduler answers"):
        connect(hosted, timeout=2, security=security)


@pytest.mark.skipif(bool(find("sshd", "ssh-keygen")), reason=find("sshd", "ssh-keygen"))
def test_ssh_with_tls(data: str, tls: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("asyncssh", reason="asyncssh is not installed")
    out = tmp_path / "model.zarr"
    with sshd(tmp_path) as known:
        fit = [data, "-k", "2", "--out", str(out), "--seed", "0"]
        said = script("ssh_cluster", *fit, *flat(known), *flat(tls))
    assert "scheduler tls://127.0.0.1" in said
    check_model(out, data)


def strict(schema: Any) -> Any:
    """The same schema without room for fields that it does not name, as `kubectl` reads it."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(value) for name, value in schema.items()}
    properties = found.get("properties")
    if isinstance(properties, dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


@pytest.mark.parametrize("name", ["cluster", "cluster-tls", "fit"])
def test_manifests_fit_the_schemas_of_the_operator(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    known = json.loads((Path(__file__).parents[1] / "data" / "dask_operator.json").read_text())
    manifests = list(yaml.safe_load_all((WORKFLOWS / "kubernetes" / f"{name}.yaml").read_text()))
    for manifest in manifests:
        pod: Any
        if manifest["kind"] == "Job":
            assert manifest["apiVersion"] == "batch/v1"
            cluster = known["schemas"]["DaskCluster"]["properties"]["spec"]
            schema = cluster["properties"]["worker"]["properties"]["spec"]
            pod = manifest["spec"]["template"]["spec"]
            jsonschema.validate(pod, strict(schema))
            continue
        assert manifest["apiVersion"] == "kubernetes.dask.org/v1"
        schema = known["schemas"][manifest["kind"]]["properties"]["spec"]
        jsonschema.validate(manifest["spec"], strict(schema))
        broken = {**manifest["spec"], "wrokers": 3}
        with pytest.raises(jsonschema.ValidationError, match="wrokers"):
            jsonschema.validate(broken, strict(schema))


def test_every_deployment_has_its_section() -> None:
    text = (WORKFLOWS / "README.md").read_text()
    named = set(re.findall(r"`(\w+\.py)`|`(kubernetes/[\w-]+\.yaml)`", text))
    flat_names = {a or b for a, b in named}
    files = {path.name for path in WORKFLOWS.glob("*_cluster.py")} | {"hosted_scheduler.py"}
    files |= {f"kubernetes/{path.name}" for path in (WORKFLOWS / "kubernetes").glob("*.yaml")}
    assert files <= flat_names
