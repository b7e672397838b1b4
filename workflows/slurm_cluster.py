r"""Fit a mixture to a Zarr array on a SLURM cluster; each worker is a job of its own.

    python workflows/slurm_cluster.py /shared/data.zarr -k 64 --out /shared/model.zarr \
        --jobs 40 --cores 4 --memory 8GiB --queue main --walltime 04:00:00 --tls

Needs ``pip install dask-jobqueue``. Run it where ``sbatch`` works: on a login node, or as a job.
The data and the model must be on a file system that the compute nodes see.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from dask_jobqueue import SLURMCluster
from distributed import Client

from streamgmm import GaussianMixture


@click.command(help=__doc__)
@click.argument("data")
@click.option("-k", "--n-components", type=int, required=True)
@click.option("--out", required=True, help="Where to save the model.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--cores", default=1, show_default=True, help="Worker processes in a job.")
@click.option("--memory", default="2GiB", show_default=True, help="Of a job.")
@click.option("--queue", help="SLURM's partition.")
@click.option("--account")
@click.option("--walltime", default="01:00:00", show_default=True)
@click.option("--interface", help="Network interface of the cluster, such as ib0.")
@click.option("--logs", default="slurm-logs", show_default=True, help="Where jobs write theirs.")
@click.option("--tls", is_flag=True, help="Encrypt what processes say to one another.")
@click.option("--seed", type=int)
def main(
    data: str,
    n_components: int,
    out: str,
    jobs: int,
    cores: int,
    memory: str,
    queue: str | None,
    account: str | None,
    walltime: str,
    interface: str | None,
    logs: str,
    tls: bool,
    seed: int | None,
) -> None:
    Path(logs).mkdir(parents=True, exist_ok=True)
    certificates = {"security": True, "protocol": "tls://", "shared_temp_directory": logs}
    with (
        SLURMCluster(
            queue=queue,
            account=account,
            cores=cores,
            processes=cores,  # one thread each: parallelism is across blocks
            memory=memory,
            walltime=walltime,
            interface=interface,
            python=sys.executable,
            log_directory=logs,
            local_directory="/tmp",
            # a job that SLURM puts back in its queue comes back as a worker, and the fit goes on
            job_extra_directives=["--requeue"],
            **(certificates if tls else {}),
        ) as cluster,
        Client(cluster) as client,
    ):
        print(cluster.job_script())
        cluster.scale(jobs=jobs)
        client.wait_for_workers(1)  # the others join when SLURM starts them
        model = GaussianMixture(n_components, random_state=seed).fit(data)
        model.save(out)
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        print(f"{model.n_iter_} iterations on {n_workers} workers; saved in {out}")


if __name__ == "__main__":
    main()
