r"""Fit a mixture to a Zarr array on a Dask cluster that someone else runs.

    python workflows/hosted_scheduler.py tls://dask.example.org:8786 s3://bucket/data.zarr -k 8 \
        --out model.zarr --tls-ca ca.pem --tls-cert me.pem --tls-key me.key

The address is what ``dask scheduler`` prints, or ``cluster.scheduler_address`` of whatever
started it. The workers need this package, and must see the data under the same name.
"""

from __future__ import annotations

import click
from distributed.security import Security

from streamgmm import GaussianMixture
from streamgmm.passes import check_workers, connect


@click.command(help=__doc__)
@click.argument("address")
@click.argument("data")
@click.option("-k", "--n-components", type=int, required=True)
@click.option("--out", required=True, help="Where to save the model.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="To await.")
@click.option("--timeout", default=30.0, show_default=True, help="Seconds.")
@click.option("--tls-ca")
@click.option("--tls-cert")
@click.option("--tls-key")
@click.option("--seed", type=int)
def main(
    address: str,
    data: str,
    n_components: int,
    out: str,
    workers: int,
    timeout: float,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    seed: int | None,
) -> None:
    security = None
    if tls_ca:
        security = Security(
            tls_ca_file=tls_ca,
            tls_client_cert=tls_cert,
            tls_client_key=tls_key,
            require_encryption=True,
        )
    with connect(address, timeout=timeout, n_workers=workers, security=security) as client:
        for worker, versions in check_workers(client).items():
            print(worker, f"streamgmm {versions['streamgmm']} on {versions['processor']}")
        model = GaussianMixture(n_components, random_state=seed).fit(data)
        model.save(out)
        print(f"{model.n_iter_} iterations; saved in {out}")


if __name__ == "__main__":
    main()
