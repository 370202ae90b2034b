"""DBOS: its Python library from PyPI, on a database of its own in the Postgres server of tests.

Deliberately absent: several processes. DBOS can be scaled out, and so can Kickwheel; here both are one process.
"""

import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import urllib.parse

import processes

HERE = pathlib.Path(__file__).parent
PACKAGE = "dbos==3.4.0"
SERVER = "KICKWHEEL_TEST_POSTGRES"
WARM_UP_S = 2


def contenders(cache, shapes):
    url = os.environ.get(SERVER)
    if not url:
        raise processes.Failed(f"{SERVER} names no Postgres server; tests/services/postgres.sh up starts one")
    python = fetch(cache)
    return {"DBOS, on Postgres": lambda seconds: measure(python, url, shapes, seconds)}


def fetch(cache):
    """A Python with the library in it."""
    folder = cache / f"dbos-{PACKAGE.rsplit('=', 1)[1]}-python{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin/python"
    complete = folder / "complete"
    if not complete.exists():
        print("fetching DBOS from PyPI", flush=True)
        processes.fetch("a Python environment", [sys.executable, "-m", "venv", "--clear", str(folder)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]
        processes.fetch("DBOS", install)
        complete.touch()
    return python


def measure(python, url, shapes, seconds):
    """One shape after the other, in a new database."""
    name = f"kw_peer_{secrets.token_hex(6)}"
    execute(python, url, f"CREATE DATABASE {name}")
    try:
        parts = urllib.parse.urlsplit(url)
        own = urllib.parse.urlunsplit(parts._replace(path=f"/{name}"))
        figures = {}
        with tempfile.TemporaryDirectory() as scratch:
            for steps, at_once in shapes:
                load = [python, HERE / "dbos_chain.py", own, steps, at_once, WARM_UP_S, seconds]
                words = [str(word) for word in load]
                figures[steps, at_once] = processes.load(words, steps, [], f"{scratch}/log", cwd=scratch)
        return figures
    finally:
        execute(python, url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def execute(python, url, statement):
    """Runs one statement with the driver that DBOS brings."""
    code = "import psycopg, sys; psycopg.connect(sys.argv[1], autocommit=True).execute(sys.argv[2])"
    subprocess.run([str(python), "-c", code, url, statement], check=True)
