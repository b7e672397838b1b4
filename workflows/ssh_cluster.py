r"""Fit a mixture to a Zarr array on machines that are reached by SSH.

    python workflows/ssh_cluster.py /shared/data.zarr -k 8 --out /shared/model.zarr \
        --host node1 --host node2 --tls-ca ca.pem --tls-cert dask.pem --tls-key dask.key

The scheduler runs on the first host, and so many workers on each. Needs ``pip install asyncssh``,
keys that log in without a question, and the same Python environment in the same place
everywhere. With certificates, their files must be in the same place on every host.
"""

from __future__ import annotations

import sys
from typing import Any

import click
import dask
from distributed import Client, SSHCluster
from distributed.security import Security

from streamgmm import GaussianMixture


def encryption(ca: str | None, cert: str | None, key: str | None) -> dict[str, Any]:
    """Dask's configuration of TLS with these files, or none."""
    if not (ca and cert and key):
        return {}
    found: dict[str, Any] = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": ca,
    }
    for role in ("scheduler", "worker", "client"):
        found |= {
            f"distributed.comm.tls.{role}.cert": cert,
            f"distributed.comm.tls.{role}.key": key,
        }
    return found


@click.command(help=__doc__)
@click.argument("data")
@click.option("-k", "--n-components", type=int, required=True)
@click.option("--out", required=True, help="Where to save the model.")
@click.option("--host", "hosts", multiple=True, required=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="A host.")
@click.option("--worker-memory", default="2GiB", show_default=True)
@click.option("--port", default=22, show_default=True, help="Of the SSH daemons.")
@click.option("--key", help="A private key; by default those that ssh would use.")
@click.option("--known-hosts", help="A file; by default the one that ssh would use.")
@click.option("--python", default=sys.executable, help="Python on the hosts.")
@click.option("--tls-ca")
@click.option("--tls-cert")
@click.option("--tls-key")
@click.option("--seed", type=int)
def main(
    data: str,
    n_components: int,
    out: str,
    hosts: tuple[str, ...],
    workers: int,
    worker_memory: str,
    port: int,
    key: str | None,
    known_hosts: str | None,
    python: str,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    seed: int | None,
) -> None:
    connect: dict[str, Any] = {"port": port}
    if key:
        connect["client_keys"] = [key]
    if known_hosts:
        connect["known_hosts"] = known_hosts
    tls = encryption(tls_ca, tls_cert, tls_key)
    protocol = "tls://" if tls else "tcp://"
    with dask.config.set(tls):
        security = Security() if tls else None
        with (
            SSHCluster(
                [hosts[0], *hosts],
                connect_options=connect,
                worker_options={
                    "nthreads": 1,
                    "n_workers": workers,
                    "memory_limit": worker_memory,
                },
                scheduler_options={
                    "host": hosts[0],
                    "port": 0,
                    "dashboard": False,
                    "protocol": protocol,
                },
                remote_python=python,
                security=security,
            ) as cluster,
            Client(cluster, security=security) as client,
        ):
            client.wait_for_workers(workers * len(hosts), timeout=60)
            print(f"scheduler {cluster.scheduler_address}, {len(hosts)} hosts")
            model = GaussianMixture(n_components, random_state=seed).fit(data)
            model.save(out)
            print(f"{model.n_iter_} iterations; saved in {out}")


if __name__ == "__main__":
    main()
