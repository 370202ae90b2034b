"""Peers beside Kickwheel, under the same shapes: `./dev bench --peers`, or peers.py [--rounds N] [--seconds S] [--only NAME].

Chains of ten durable steps and single steps, 64 clients at once and one alone, each client in a closed loop through the
peer's public interface. In every round each peer is started anew, measured and ended, and Kickwheel beside it, so that
what else the machine does meets all of them; the medians of the rounds' ratios count. Kickwheel is measured by the command
in KICKWHEEL_STEPS (the bench `steps` with --once); without it only the peers' figures are printed.

What is compared is not the same work. A step of Restate crosses HTTP to another process, the service, and back; a step of
DBOS is a function call in the client's own process that is recorded in Postgres; Kickwheel's is a call of a sandboxed WASM
plugin in the server's process, recorded in SQLite. Each is durable before the next one begins.

Restate comes from npm and DBOS from PyPI, into $KICKWHEEL_CACHE/peers; a peer that cannot be had is skipped, with the reason.
DBOS needs KICKWHEEL_TEST_POSTGRES. CPU counts the processes named beside each row, not the clients', nor Postgres.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

import peer_dbos
import peer_restate
import processes

OURS = "Kickwheel"

# Length of the chain, clients at once.
SHAPES = [(10, 64), (1, 64), (10, 1), (1, 1)]

# Kickwheel's steps per second against a peer's, at 64 at once: (peer, steps) to the least ratio.
SPEED_GOALS = {("Restate", 10): 10, ("Restate", 1): 20, ("DBOS", 10): 40}
# A peer's CPU for a step against Kickwheel's, in chains of ten at 64 at once.
CPU_GOALS = {"Restate": 15}


def shape_name(shape):
    steps, at_once = shape
    what = "1 step" if steps == 1 else f"chain of {steps}"
    return f"{what}, alone" if at_once == 1 else f"{what}, {at_once} at once"


def kickwheel(_seconds):
    """Figures by shape, from the bench of our own; its stretches have a length of their own."""
    told = subprocess.run(
        shlex.split(os.environ["KICKWHEEL_STEPS"]), check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    rows = json.loads(told.strip().splitlines()[-1])
    return {
        (row["steps"], row["at_once"]): {
            "runs_per_s": row["runs_per_s"],
            "p50_ms": row["p50_ms"],
            "cpu_ms": row["cpu_ms_per_step"],
        }
        for row in rows
    }


def measure(contenders, rounds, seconds):
    """Figures by contender, shape and round; a peer that fails is dropped, and said to be. Ours may not fail."""
    seen = {name: {shape: [] for shape in SHAPES} for name in contenders}
    for number in range(1, rounds + 1):
        for name, run in list(contenders.items()):
            try:
                figures = run(seconds)
            except (OSError, subprocess.SubprocessError, processes.Failed) as error:
                if name == OURS:
                    raise
                print(f"SKIPPED: {name} failed in round {number}: {error}", flush=True)
                del contenders[name], seen[name]
                continue
            for shape, row in figures.items():
                seen[name][shape].append(row)
                print(f"round {number}: {name}: {shape_name(shape)}: {describe(shape, row)}", flush=True)
    return seen


def describe(shape, row):
    return (
        f"{row['runs_per_s']:.1f} runs/s, {row['runs_per_s'] * shape[0]:.0f} steps/s, p50 {row['p50_ms']:.1f} ms, "
        f"{row['cpu_ms']:.3f} ms CPU a step"
    )


def report(seen):
    print("\nmedians of all rounds")
    for shape in SHAPES:
        for name, by_shape in seen.items():
            rows = by_shape[shape]
            row = {key: statistics.median(each[key] for each in rows) for key in rows[0]}
            print(f"  {shape_name(shape):24} {name:24} {describe(shape, row)}")
    if OURS not in seen:
        print("Kickwheel was not measured: KICKWHEEL_STEPS names no command, so there are no ratios")
        return
    print("\nmedians of the rounds' ratios (another process does Restate's steps, over HTTP; DBOS calls its own)")
    for name, by_shape in seen.items():
        if name == OURS:
            continue
        peer = name.split(",")[0]
        for shape in SHAPES:
            pairs = list(zip(seen[OURS][shape], by_shape[shape]))
            speed = statistics.median(ours["runs_per_s"] / theirs["runs_per_s"] for ours, theirs in pairs)
            cpu = statistics.median(theirs["cpu_ms"] / ours["cpu_ms"] for ours, theirs in pairs)
            many = shape[1] > 1
            speed_goal = SPEED_GOALS.get((peer, shape[0])) if many else None
            cpu_goal = CPU_GOALS.get(peer) if many and shape[0] > 1 else None
            print(
                f"  P1: {shape_name(shape)}: Kickwheel / {name}: steps/s {speed:.1f}x{goal(speed_goal)}; "
                f"{name} / Kickwheel: CPU of a step {cpu:.1f}x{goal(cpu_goal)}"
            )


def goal(least):
    return "" if least is None else f" (goal >= {least}x)"


def contenders(cache, only):
    """What can be had here, by name."""
    found = {}
    if "KICKWHEEL_STEPS" in os.environ:
        found[OURS] = kickwheel
    candidates = {
        "restate": lambda: peer_restate.contenders(cache, SHAPES),
        "dbos": lambda: peer_dbos.contenders(cache, SHAPES),
    }
    for name, make in candidates.items():
        if only and name != only:
            continue
        try:
            found.update(make())
        except (OSError, subprocess.SubprocessError, processes.Failed) as error:
            print(f"SKIPPED: {name}: {error}", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="how long each shape is measured in a round")
    parser.add_argument("--only", choices=["restate", "dbos"])
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("at least one round is needed")
    home = os.environ.get("KICKWHEEL_CACHE") or pathlib.Path.home() / ".cache/kickwheel"
    cache = pathlib.Path(home) / "peers"
    cache.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    seen = measure(contenders(cache, options.only), options.rounds, options.seconds)
    if not seen:
        print("no peer could be had")
        return
    report(seen)
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
