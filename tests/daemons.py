"""Real daemons for tests of deployments: SLURM, SSH, a Dask scheduler; loopback only."""

from __future__ import annotations

import getpass
import io
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def find(*programs: str) -> str:
    """Why these programs cannot be run here; nothing where they can."""
    missing = [name for name in programs if shutil.which(name, path=SBIN) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (.ci/system-packages installs it as root)"
    return ""


def set_environment(values: Mapping[str, str | None]) -> None:
    """Set variables, on a worker; those that are None are removed."""
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_until(there: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = there()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{what} within {seconds} s")


@contextmanager
def running(*command: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the foreground that is ended, with all that it started, on leaving."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=os.environ | {"PATH": SBIN} | environment,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(*command: str, seconds: float = 600, **environment: str) -> str:
    """What a program prints; an AssertionError with its errors where it fails."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        env=os.environ | {"PATH": SBIN} | environment,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def script(name: str, *arguments: str, **environment: str) -> str:
    """What a script of workflows/ prints, in a process of its own."""
    return run(sys.executable, str(ROOT / "workflows" / f"{name}.py"), *arguments, **environment)


def script_here(name: str, *arguments: str) -> str:
    """The same in this process, which has imported what scripts import; for those on threads."""
    from matplotlib import pyplot as plt

    path = str(ROOT / "workflows" / f"{name}.py")
    with (
        redirect_stdout(io.StringIO()) as said,
        patch.object(sys, "argv", [path, *arguments]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # nobody reads what a script warns of
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise AssertionError(f"{name}: {end.code}\n{said.getvalue()}") from end
        finally:
            plt.close("all")
    return said.getvalue()


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """A SLURM controller, a node of four processors and munge; gives what clients need."""
    host = socket.gethostname().split(".")[0]
    munge, conf = folder / "munge", folder / "slurm.conf"
    for path in (folder, munge, folder / "state", folder / "spool"):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    key = munge / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    version = re.findall(r"\d+", run("slurmd", "-V"))
    # A container has no cgroups to give away; before 23.02 there was no word for that.
    plugin = "disabled" if tuple(map(int, version[:2])) >= (23, 2) else "cgroup/v1"
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
    user = getpass.getuser()
    conf.write_text(f"""\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthType=auth/munge
AuthInfo=socket={munge}/socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=100000
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")
    environment = {"SLURM_CONF": str(conf)}
    log = folder / "daemons.log"
    with ExitStack() as stack:
        files = [f"--{name}-file={munge}/{name}" for name in ("key", "pid", "log", "seed")]
        stack.enter_context(
            running(
                "munged", "--foreground", "--force", f"--socket={munge}/socket", *files, log=log
            )
        )
        wait_until((munge / "socket").exists, "munged")
        stack.enter_context(running("slurmctld", "-D", "-c", log=log, **environment))
        stack.enter_context(running("slurmd", "-D", log=log, **environment))

        def idle() -> bool:
            done = subprocess.run(
                ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True,
                env=os.environ | environment, check=False,
            )  # fmt: skip
            return done.stdout.strip() == "idle"

        try:
            wait_until(idle, "an idle node")
        except TimeoutError as error:
            raise TimeoutError(log.read_text()[-3000:]) from error
        yield environment
        run("scancel", "--user", user, **environment)


@contextmanager
def sshd(folder: Path) -> Iterator[dict[str, str]]:
    """An SSH daemon for this user on a high port, with keys made for it."""
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    port = free_port()
    public = (folder / "user.pub").read_text()
    (folder / "authorized").write_text(public)
    kind, key, *_ = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    (folder / "config").write_text(f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile {folder}/pid
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
""")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    program = shutil.which("sshd", path=SBIN)
    assert program is not None
    with running(program, "-D", "-e", "-f", str(folder / "config"), log=folder / "log"):

        def answers() -> bool:
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, "sshd")
        yield {
            "--host": "127.0.0.1",
            "--port": str(port),
            "--key": str(folder / "user"),
            "--known-hosts": str(folder / "known"),
        }


def write_certificates(folder: Path) -> dict[str, str]:
    """A certificate authority of one day and what it signed; paths of its files."""
    from distributed.security import Security

    folder.mkdir(exist_ok=True)
    client = Security.temporary().get_tls_config_for_role("client")
    found = {}
    for name, value in (
        ("--tls-ca", client["ca_file"]), ("--tls-cert", client["cert"]),
        ("--tls-key", client["key"]),
    ):  # fmt: skip
        path = folder / f"{name[2:]}.pem"
        path.write_text(value)
        path.chmod(0o600)
        found[name] = str(path)
    return found


@contextmanager
def dask_cluster(folder: Path, tls: Mapping[str, str], n_workers: int = 1) -> Iterator[str]:
    """A scheduler and workers started by hand, as somebody else would; gives the address."""
    options: list[str] = []
    if tls:
        options = ["--tls-ca-file", tls["--tls-ca"], *flat(tls, "--tls-cert", "--tls-key")]
    port = free_port()
    protocol = "tls" if tls else "tcp"
    address = f"{protocol}://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    log = folder / "dask.log"
    with ExitStack() as stack:
        where = ["--host", "127.0.0.1", "--port", str(port), "--protocol", protocol]
        stack.enter_context(
            running(*dask, "scheduler", *where, "--no-dashboard", *options, log=log)
        )
        for _ in range(n_workers):
            more = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
            stack.enter_context(running(*dask, "worker", address, *more, *options, log=log))
        yield address


def flat(options: Mapping[str, str], *names: str) -> list[str]:
    """Options as they stand on a command line."""
    return [part for name in (names or options) for part in (name, options[name])]
