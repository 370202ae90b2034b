"""Processes of peers: free ports, waiting for an answer, CPU by process id, loads that say when they are warm.

Whatever is started here is ended here, by its own process id. Nothing in this file knows a peer.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time

# How long a server may take until it answers.
PATIENCE_S = 60
# How long fetching a peer's packages may take.
FETCH_S = 600


class Failed(Exception):
    """A peer that could not be fetched, started or measured; the text says why."""


def fetch(what, arguments, **options):
    """Runs a command that fetches packages; its words are shown only when it fails."""
    ended = subprocess.run(
        arguments, timeout=FETCH_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if ended.returncode != 0:
        raise Failed(f"{what} could not be fetched: {' '.join(ended.stdout.split())[-300:]}")


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def running(arguments, log, **options):
    """A process that ends with the block. What it prints goes into a file."""
    with open(log, "ab") as output:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(ask, process, log):
    """Asks until it is so; a process that ends meanwhile, or takes too long, is a failure."""
    deadline = time.monotonic() + PATIENCE_S
    while not ask():
        if process.poll() is not None or time.monotonic() > deadline:
            end = "ended" if process.poll() is not None else f"did not answer within {PATIENCE_S} s"
            words = pathlib.Path(log).read_text(errors="replace").split()
            raise Failed(f"{process.args[0]} {end}: {' '.join(words)[-300:]}")
        time.sleep(0.05)


def cpu_ms(pids):
    """CPU time of processes so far, in milliseconds: user code and kernel, without their children."""
    ticks = 0
    for pid in pids:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        # The name may hold blanks and parentheses: what follows the last one is regular (fields 14 and 15 of proc(5)).
        fields = stat[stat.rindex(")") + 2 :].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def load(arguments, steps, pids, log, **options):
    """Runs a program that prints `warm` and later its figures as JSON, and adds the CPU of `pids` meanwhile.

    A program that tells `cpu_ms` itself is a library's: the work is done in it, and it may be gone before it is looked at.
    """
    with open(log, "ab") as errors:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, **options
        )
    try:
        warm = process.stdout.readline().strip() == "warm"
        before = cpu_ms(pids)
        line = process.stdout.readline() if warm else ""
        spent = cpu_ms(pids) - before
        if not line:
            process.wait(PATIENCE_S)
            words = pathlib.Path(log).read_text(errors="replace").split()
            raise Failed(f"the load ended early: {' '.join(words)[-300:]}")
        process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    figures = json.loads(line)
    return {
        "runs_per_s": figures["runs"] / figures["seconds"],
        "p50_ms": figures["p50_ms"],
        "cpu_ms": figures.get("cpu_ms", spent) / (figures["runs"] * steps),
    }
