"""A real Slurm on this machine alone, on the loopback address: munge, controller and one node, started by root."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.tracking_server import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun")
_PATIENCE = 30  # seconds until the node is ready
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def can_run() -> bool:
    """Whether Slurm and munge are installed and may be started."""
    return all(map(shutil.which, PROGRAMS)) and os.geteuid() == 0


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Environment variables for its commands while it runs. folder: short, since a socket's path is limited."""
    folder.chmod(0o700)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    cores, host = len(os.sched_getaffinity(0)), socket.gethostname().partition(".")[0]
    ports = {"controller": free_port(), "node": free_port()}
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(host=host, folder=folder, cores=cores, **ports))
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munge.seed"}
    options = [f"--{option}={folder / name}" for option, name in files.items()]
    daemons = [
        subprocess.Popen(["munged", "--foreground", "--force", f"--key-file={key}", *options]),
        subprocess.Popen(["slurmctld", "-D"], env=os.environ | environment),
        subprocess.Popen(["slurmd", "-D"], env=os.environ | environment),
    ]
    try:
        _wait_for_node(environment)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def _wait_for_node(environment: dict[str, str]) -> None:
    deadline, said = time.monotonic() + _PATIENCE, ""
    while "idle" not in said:
        assert time.monotonic() < deadline, said
        time.sleep(0.5)
        done = subprocess.run(
            ["sinfo", "--noheader"], env=os.environ | environment, text=True, capture_output=True, check=False
        )
        said = done.stdout + done.stderr
