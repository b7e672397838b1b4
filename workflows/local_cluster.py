"""Fit a mixture to a Zarr array on processes of this machine.

python workflows/local_cluster.py data.zarr -k 8 --out model.zarr --workers 4 --tls
"""

from __future__ import annotations

import click
from distributed import Client, LocalCluster
from distributed.security import Security

from streamgmm import GaussianMixture


@click.command(help=__doc__)
@click.argument("data")
@click.option("-k", "--n-components", type=int, required=True)
@click.option("--out", required=True, help="Where to save the model.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--worker-memory", default="2GiB", show_default=True)
@click.option("--tls", is_flag=True, help="Encrypt what processes say to one another.")
@click.option("--seed", type=int)
def main(
    data: str, n_components: int, out: str, workers: int, worker_memory: str, tls: bool, seed: int
) -> None:
    security = Security.temporary() if tls else None
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,  # parallelism is across blocks
            memory_limit=worker_memory,
            protocol="tls" if tls else "tcp",
            security=security,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster, security=security) as client,
    ):
        print(f"scheduler {cluster.scheduler_address}, dashboard {client.dashboard_link}")
        model = GaussianMixture(n_components, random_state=seed).fit(data)
        model.save(out)
        print(f"{model.n_iter_} iterations; saved in {out}")


if __name__ == "__main__":
    main()
