"""What a demo runs on: the plain engine, or a real Kafka, PostgreSQL and Docker around it, in any combination.

Services are started by the scripts of tests/services, with the demo's own folder as their memory, unless an address in
the environment (KICKWHEEL_TEST_KAFKA, _POSTGRES, _DOCKER) names one that is there already: then the demo takes a prefix
or a database of its own in it, and removes that again. What is claimed about Kafka is checked in bus_log.py; what
containers are is asked of Docker here, never of our engine.
"""

import json
import os
import pathlib
import subprocess

import processes

SERVICES = pathlib.Path(__file__).resolve().parents[1] / "services"
KINDS = ("postgres", "kafka", "docker")
# Every container of ours names its attempt by this label.
ATTEMPT_LABEL = "dev.kickwheel.attempt"
# Written into the demo's folder, so that a later one can end what this one left.
RECORD = "backing.json"


class Backing:
    """The services of one demo, their addresses, and how the server is told about them."""

    def __init__(self, base, wanted):
        self.base = base
        self.wanted = [kind for kind in KINDS if kind in wanted]
        self.addresses = {}  # those that were given and those that we started
        self.started = []  # those that we started
        self.image = None
        # Names that no other demo has: of topics the beginning, of databases the whole.
        self.topics = base.name
        self.database = base.name.replace("-", "_")

    # ── beginning and end ────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, pip, say):
        """Starts what is wanted and not given; makes the database and the image. Says what it does."""
        for kind in self.wanted:
            given = os.environ.get(f"KICKWHEEL_TEST_{kind.upper()}")
            if not given:
                self.started.append(kind)
            self.note()
            self.addresses[kind] = given or self.script(kind, "up").strip()
            self.note()
            say(f"  {kind:<10} {without_password(self.addresses[kind])}" + ("   (given by the environment)" if given else ""))
        if "postgres" in self.wanted:
            self.query(f"CREATE DATABASE {self.database}", self.addresses["postgres"])
        if "docker" in self.wanted:
            self.image = self.script("docker", "image", "digits", pip).strip()
            say(f"  image      {self.image}")

    def note(self):
        known = {"wanted": self.wanted, "addresses": self.addresses, "started": self.started}
        (self.base / RECORD).write_text(json.dumps(known))

    @classmethod
    def of_folder(cls, base):
        """That of an earlier demo, from its note; one of nothing where there is none."""
        backing = cls(base, [])
        try:
            known = json.loads((base / RECORD).read_text())
        except (OSError, ValueError):
            return backing
        backing.wanted, backing.addresses, backing.started = known["wanted"], known["addresses"], known["started"]
        return backing

    def end(self):
        """Ends what was started, and removes what was made in services that were given. The engine must have ended."""
        problems = []
        for kind in self.wanted:
            address = self.addresses.get(kind)
            try:
                if kind in self.started:
                    self.script(kind, "down", quiet=True)
                elif kind == "kafka" and address:
                    self.script("kafka", "forget", address, self.topics, quiet=True)
                elif kind == "postgres" and address:
                    self.script("postgres", "query", address, f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)", quiet=True)
                elif kind == "docker" and address:
                    mine = [found["Id"] for found in self.containers()]
                    if mine:
                        self.docker("rm", "--force", "--volumes", *mine)
            except subprocess.CalledProcessError as failure:
                problems.append(f"{kind}: {(failure.stderr or '').strip()}")
        self.wanted = []
        return problems

    def script(self, kind, *args, quiet=False):
        """What one of the scripts prints; what it says on the way goes to the terminal, or with `quiet` into a failure."""
        env = os.environ | {"KICKWHEEL_SERVICES": str(self.base / "services")}
        if kind in self.addresses:
            env[f"KICKWHEEL_TEST_{kind.upper()}"] = self.addresses[kind]
        argv = [SERVICES / f"{kind}.sh", *(str(arg) for arg in args)]
        stderr = subprocess.PIPE if quiet else None
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, check=True)
        return done.stdout

    # ── what the server is told ──────────────────────────────────────────────────────────────────────────────────────

    def serve_args(self):
        args = []
        if "postgres" in self.wanted:
            args += ["--database", self.database_url()]
        if "kafka" in self.wanted:
            args += ["--bus", self.bus_url()]
        if "docker" in self.wanted:
            args += ["--docker", self.addresses["docker"]]
        return args

    def bus_url(self):
        return f"kafka://{self.addresses['kafka']}/{self.topics}" if "kafka" in self.wanted else "embedded"

    def database_url(self, engine=None):
        if "postgres" not in self.wanted:
            return f"sqlite:{engine / 'kickwheel.db'}"
        base, mark, options = self.addresses["postgres"].partition("?")
        return f"{base.rsplit('/', 1)[0]}/{self.database}{mark}{options}"

    def in_containers(self):
        return "docker" in self.wanted

    def pool(self):
        return "docker" if self.in_containers() else "local"

    def adapt(self, workflow):
        """The project's workflow for this backing: with Docker, every script gets the image that it runs in."""
        if not self.in_containers():
            return workflow
        lines = []
        for line in workflow.splitlines(keepends=True):
            if line.startswith("    run: "):
                lines.append(f"    image: {self.image}\n")
            lines.append(line)
        return "".join(lines)

    # ── what is looked up behind the engine's back ───────────────────────────────────────────────────────────────────

    def query(self, sql, url=None):
        """The rows of the demo's own PostgreSQL database, or of another."""
        printed = self.script("postgres", "query", url or self.database_url(), sql)
        return [line.split("\t") for line in printed.splitlines()]

    def docker(self, *args):
        argv = ["docker", "--host", self.addresses["docker"], *args]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout

    def containers(self, attempt=None):
        """Docker's own description of this demo's containers, or of that of one attempt."""
        label = ATTEMPT_LABEL if attempt is None else f"{ATTEMPT_LABEL}={attempt}"
        ids = self.docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={label}").split()
        described = json.loads(self.docker("inspect", *ids)) if ids else []
        ours = f"{self.base}/"
        return [one for one in described if any(mount["Source"].startswith(ours) for mount in one["Mounts"])]

    def whereabouts(self, attempt, pid):
        """What must stay the same when an engine that comes back adopts an attempt.

        Of a process: it and all its descendants, with their start times. Of a container also its id, its start and its
        number of restarts; `pid` is then the one that the job has inside, and must be that of one of its processes.
        """
        if not self.in_containers():
            return {"tree": processes.tree(pid)}
        found = self.containers(attempt)
        if len(found) != 1:
            return {"containers": [one["Id"] for one in found]}
        state = found[0]["State"]
        tree = processes.tree(state["Pid"])
        return {
            "id": found[0]["Id"],
            "started": state["StartedAt"],
            "restarts": found[0]["RestartCount"],
            "running": state["Running"],
            "tree": tree,
            "inside": [named for named, _ in tree if processes.pid_inside(named) == pid],
        }

    def describe(self, where, pid):
        """The same for a person."""
        if not self.in_containers():
            first = min(where["tree"])
            return f"process {first[0]}, started at tick {first[1]}"
        return f"container {where['id'][:12]}, started {where['started']}; process {pid} inside, {where['inside'][0]} outside"


def without_password(url):
    """A URL that may be shown."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[1]}" if mark and "@" in rest else url
