"""Restate: its server and a service from npm, measured with 2 and with 24 partitions (the default).

Deliberately absent: its Rust SDK, whose service would take less CPU than Node's; the row says which service it is.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

import processes

HERE = pathlib.Path(__file__).parent / "restate"
PARTITIONS = [24, 2]
WARM_UP_S = 2
# The SDK needs Node 20 with the one function that service.mjs adds.
OLDEST_NODE = 20


def contenders(cache, shapes):
    folder = fetch(cache)
    return {
        f"Restate, {partitions} partitions": lambda seconds, partitions=partitions: measure(
            folder, partitions, shapes, seconds
        )
        for partitions in PARTITIONS
    }


def fetch(cache):
    """The folder with its packages and our service beside them."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise processes.Failed(f"{program} was not found; install Node.js {OLDEST_NODE} or later")
    version = subprocess.run(["node", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        raise processes.Failed(f"Node.js is {version}; {OLDEST_NODE} or later is needed")
    folder = cache / "restate"
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "service.mjs", "load.mjs"):
        shutil.copy(HERE / name, folder / name)
    if not server(folder):
        print("fetching Restate from npm", flush=True)
        processes.fetch("Restate", ["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=folder)
    if not server(folder):
        raise processes.Failed("npm has no server of Restate for this machine")
    return folder


def server(folder):
    """The server's program, which npm keeps in a package per system and processor; none before it is fetched."""
    return next(folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"), None)


def settings(data, partitions, ingress, admin, node):
    return f"""
bind-address = "127.0.0.1:{node}"
base-dir = "{data}"
disable-telemetry = true
default-num-partitions = {partitions}
log-filter = "warn"
listen-mode = "tcp"
[ingress]
bind-address = "127.0.0.1:{ingress}"
[admin]
bind-address = "127.0.0.1:{admin}"
"""


def measure(folder, partitions, shapes, seconds):
    """A new server with an empty folder; the service is told to it; then one shape after the other."""
    ingress, admin, node, port = processes.free_ports(4)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        scratch = pathlib.Path(scratch)
        config, server_log, service_log = scratch / "restate.toml", scratch / "server.log", scratch / "service.log"
        config.write_text(settings(scratch / "data", partitions, ingress, admin, node))
        begin_server = [str(server(folder)), "--config-file", str(config), "--no-logo"]
        begin_service = ["node", str(folder / "service.mjs"), str(port)]
        quiet = {"NODE_ENV": "production", "RESTATE_LOGGING": "ERROR"}
        with (
            processes.running(begin_server, server_log, cwd=scratch) as theirs,
            processes.running(begin_service, service_log, env={**os.environ, **quiet}) as service,
        ):
            processes.until(lambda: answers(f"http://127.0.0.1:{admin}/health"), theirs, server_log)
            deployment = {"uri": f"http://127.0.0.1:{port}"}
            processes.until(lambda: told(f"http://127.0.0.1:{admin}/deployments", deployment), theirs, server_log)
            processes.until(lambda: told(f"http://127.0.0.1:{ingress}/Chain/run", 1), theirs, server_log)
            figures = {}
            for steps, at_once in shapes:
                load = ["node", str(folder / "load.mjs"), ingress, steps, at_once, WARM_UP_S, seconds]
                figures[steps, at_once] = processes.load(
                    [str(word) for word in load], steps, [theirs.pid, service.pid], scratch / "load.log"
                )
            return figures


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def told(url, body):
    """Whether it was accepted; a server that just began refuses for a moment."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status in (200, 201)
    except (OSError, urllib.error.URLError):
        return False
