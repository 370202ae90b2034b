#!/usr/bin/env python3
"""The demo: a push retrains a real model on this machine, and every claim that it makes is checked.

It is a story in four acts (see `main`), told through the binary's own commands, as a user would give them; what the
commands say is compared with what the operating system, Git and the files say. It exits 0 only if every claim holds.
It does not build anything and installs nothing: `./dev demo` does that and calls this file. What the story runs on (a
plain engine, or Kafka, PostgreSQL, Docker) is in backing.py, what the broker's log must say in bus_log.py, how processes
are looked up in processes.py, the story's data in workflows/digits.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import bus_log
import processes
from backing import KINDS, Backing, without_password

PROJECT = pathlib.Path(__file__).resolve().parents[2] / "workflows" / "digits"
# What the whole story may take; builds and the start of services before it are not counted.
TIME_LIMIT = 300.0
# A container takes longer to start than a process, and gets no more than the one core that it asked for.
TIME_LIMIT_IN_CONTAINERS = 480.0
# Printed and recorded values are rounded to six digits.
TOLERANCE = 2e-6
# The data file that comes later, in act three.
LATE_FILE = "digits-3.csv"
# The workflow's default.
EPOCHS = 60
# The engine is killed while a training task is between these fractions of its work, so that it is truly in the middle
# and goes on long enough to be seen again after the restart.
KILL_FROM, KILL_TO = 0.05, 0.6


class Failed(Exception):
    """A claim that turned out not to be true, or a wait that came to no end."""


class Demo:
    """The folders, the server process and the commands of one telling of the story."""

    def __init__(self, binary, python, limit, wanted=()):
        self.binary = binary
        self.limit = limit
        self.began = time.monotonic()
        self.checked = 0
        self.colour = sys.stdout.isatty()
        self.base = pathlib.Path(tempfile.gettempdir(), f"kickwheel-demo-{os.getuid()}-{os.getpid()}")
        self.data = self.base / "data"  # the watched data folder
        self.later = self.base / "later"  # what is added to it in act three
        self.engine = self.base / "engine"  # the engine's own data folder
        self.repo = self.base / "digits.git"
        self.work = self.base / "work"
        self.backing = Backing(self.base, wanted)
        self.server = None
        self.last_seen = ""  # what a wait looked at last, told if it comes to no end
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self.python = python / "bin" / "python3"
        self.pip = python / "bin" / "pip"
        # Jobs get the server's PATH: this is how the project's scripts find the Python that has scikit-learn.
        self.env = os.environ | {
            "PATH": f"{python / 'bin'}:{os.environ['PATH']}",
            "KICKWHEEL_SERVER": self.url,
            "KICKWHEEL_TOKEN_FILE": str(self.engine / "token"),
            "KICKWHEEL_DEMO": str(self.base),
            "GIT_AUTHOR_NAME": "Demo",
            "GIT_AUTHOR_EMAIL": "demo@localhost",
            "GIT_COMMITTER_NAME": "Demo",
            "GIT_COMMITTER_EMAIL": "demo@localhost",
            # The user's own Git settings (signing, hooks, templates) must not change the story.
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }

    # ── telling and checking ─────────────────────────────────────────────────────────────────────────────────────────

    def paint(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def title(self, text):
        print("\n" + self.paint("1", f"── {text} " + "─" * max(3, 96 - len(text))), flush=True)

    def say(self, text):
        print(text, flush=True)

    def check(self, claim, holds, seen=""):
        if not holds:
            raise Failed(f"{claim}" + (f"\n  seen: {seen}" if seen != "" else ""))
        self.checked += 1
        print(self.paint("32", "  ✓ ") + claim, flush=True)

    def left(self):
        return self.limit - (time.monotonic() - self.began)

    def until(self, what, look, seconds=60.0, every=0.1):
        """The first true value that `look` gives."""
        deadline = time.monotonic() + min(seconds, self.left())
        while True:
            value = look()
            if value:
                self.last_seen = ""
                return value
            if self.server and self.server.poll() is not None:
                raise Failed(f"waiting for {what}: the engine ended with code {self.server.returncode}")
            if time.monotonic() > deadline:
                raise Failed(f"waited too long for {what}" + (f"\n  seen: {self.last_seen}" if self.last_seen else ""))
            time.sleep(every)

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, *argv, show=False, env=None):
        """Runs a program; with `show` its output goes to the terminal, else it is returned."""
        argv = [str(arg) for arg in argv]
        stream = None if show else subprocess.PIPE
        done = subprocess.run(
            argv, env=env or self.env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, text=True,
            timeout=max(1.0, self.left()),
        )
        if done.returncode != 0:
            raise Failed(f"`{' '.join(argv)}` ended with code {done.returncode}\n{done.stdout or ''}{done.stderr or ''}")
        return done.stdout

    def kickwheel(self, *args):
        """One of our commands, shown as a user would type it, with what it prints."""
        print(self.paint("2", f"$ kickwheel {' '.join(str(arg) for arg in args)}"), flush=True)
        self.run(self.binary, *args, show=True)

    def ask(self, *args):
        """The JSON that one of our commands prints."""
        return json.loads(self.run(self.binary, *args, "--json"))

    def git(self, *args, folder=None):
        return self.run("git", "-C", folder or self.work, *args)

    # ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start_engine(self):
        with open(self.base / "serve.log", "ab") as log:
            self.server = subprocess.Popen(
                [self.binary, *self.serve_args()],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        self.until("the engine to answer", self.answers)

    def serve_args(self):
        return ["serve", "--data", str(self.engine), "--listen", self.address, *self.backing.serve_args()]

    def answers(self):
        if not (self.engine / "token").exists():
            return False
        done = subprocess.run([self.binary, "doctor", "--json"], env=self.env, capture_output=True, text=True)
        self.last_seen = done.stdout + done.stderr
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(done.stdout)["state"] == "ok"
        return False

    def runs(self):
        return self.ask("runs", "ls")["items"]

    def get(self, run):
        return self.ask("runs", "get", run)

    def tasks(self, detail, step):
        return next(found for found in detail["steps"] if found["name"] == step)["tasks"]

    def new_run(self, known, matches):
        """The run that is not among `known` and that `matches`."""
        def look():
            return next((run for run in self.runs() if run["id"] not in known and matches(run)), None)
        return self.until("a run to be started", look)

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def push(self):
        print(self.paint("2", "$ git push origin main"), flush=True)
        pushed = time.time()
        # As from anybody's terminal: the hook must find the engine by itself.
        plain = {name: value for name, value in self.env.items() if name not in ("KICKWHEEL_SERVER", "KICKWHEEL_TOKEN_FILE")}
        self.run("git", "-C", self.work, "push", "--quiet", "origin", "main", env=plain)
        return pushed

    def results(self, run):
        """What the runners wrote about each attempt of a run, by the attempt's name; nothing that the engine says."""
        attempts = (self.engine / "pool" / self.backing.pool() / "attempts").glob(f"{run}.*")
        return {folder.name: json.loads((folder / "result.json").read_text()) for folder in attempts}

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────

    def show_trials(self, detail):
        """The table of the trials; returns the best one, chosen here and not by the engine."""
        trials = self.tasks(detail, "train")
        best = min(trials, key=lambda task: (task["metrics"]["val_loss"], task["index"]))
        self.say(f"\n  {'trial':<10}{'hidden':>8}{'learning_rate':>15}{'val_loss':>12}{'val_accuracy':>14}{'train_loss':>12}")
        for task in trials:
            values, metrics = task["matrix"], task["metrics"]
            line = (
                f"  train[{task['index']}]  {values['hidden']:>8}{values['learning_rate']:>15}{metrics['val_loss']:>12.6f}"
                f"{metrics['val_accuracy']:>14.6f}{metrics['train_loss']:>12.6f}"
            )
            self.say(self.paint("1", line + "   best") if task is best else line)
        self.say("")
        return best

    def production(self):
        """The version of the model that is in production."""
        model = self.ask("models", "get", "digits")
        version = model["stages"]["production"]
        return next(found for found in model["versions"] if found["version"] == version)

    def evaluate_again(self, version, printed):
        """Takes the promoted bytes out of the engine, and scores them without it."""
        digest = version["artifact"]["digest"]
        model = self.base / f"model-{version['version']}.npz"
        self.kickwheel("artifacts", "get", digest, "-o", model)
        found = "sha256:" + hashlib.sha256(model.read_bytes()).hexdigest()
        self.check(f"the promoted file hashes to its digest {digest}", found == digest, found)
        script = PROJECT / "src" / "evaluate.py"
        scored = json.loads(self.run(self.python, script, model, *sorted(self.data.glob("*.csv"))))
        for name in ("val_loss", "val_accuracy"):
            self.check(
                f"scored again from the raw files, its {name} is {scored[name]}, as the trial printed and the version says",
                abs(scored[name] - printed[name]) < TOLERANCE
                and abs(scored[name] - version["metrics"][name]) < TOLERANCE,
                f"trial {printed[name]}, version {version['metrics'][name]}",
            )


def first_push(demo):
    demo.title("1. A push retrains the model")
    demo.run("git", "init", "--quiet", "--bare", "--initial-branch", "main", demo.repo)
    demo.kickwheel("repos", "add", demo.repo, "--name", "digits")
    demo.kickwheel("datasets", "add", "digits/raw", demo.data, "--settle", "1s")
    demo.until("the dataset's first version", lambda: demo.ask("datasets", "get", "digits/raw")["versions"])
    demo.check("there is no model yet", demo.ask("models", "ls")["items"] == [])

    demo.run("git", "clone", "--quiet", demo.repo, demo.work)
    # What Git would ignore is not part of the project: `git add` sees to that.
    shutil.copytree(PROJECT, demo.work, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".venv"))
    workflow = demo.work / ".kickwheel" / "retrain.yaml"
    workflow.write_text(demo.backing.adapt(workflow.read_text()))
    commit = demo.commit("A classifier of handwritten digits")
    demo.git("branch", "--move", "--force", "main")
    pushed = demo.push()
    run = demo.new_run(set(), lambda run: run["commit"] == commit)
    demo.kickwheel("runs", "get", run["id"], "--watch")
    detail = demo.get(run["id"])
    best = demo.show_trials(detail)
    demo.check(f"run {run['id']} succeeded", detail["state"] == "succeeded", detail["state"])
    demo.check("it is the only one", len(demo.runs()) == 1, demo.runs())
    demo.check("4 data files were prepared, 4 settings trained", [len(demo.tasks(detail, s)) for s in ("prepare", "train")] == [4, 4])

    if demo.backing.in_containers():
        in_image(demo, run["id"])
    version = demo.production()
    demo.check(
        f"version {version['version']} of the model digits is in production: train[{best['index']}], the lowest val_loss",
        version["version"] == 1 and version["artifact"]["digest"] == best["outputs"]["model"]["digest"],
        version,
    )
    demo.evaluate_again(version, best["metrics"])
    note = demo.until("the Git note", lambda: read_note(demo, commit))
    demo.check("the result is a Git note of the commit", run["id"] in note and "succeeded" in note, note)
    started = min(result["started_at"] for result in demo.results(run["id"]).values()) / 1000
    event = next(found for found in demo.ask("events", "ls")["items"] if run["id"] in found["runs"])
    demo.first_task = (started - pushed, started - processes.parse_time(event["received_at"]))
    demo.check(f"its first task began {demo.first_task[0] * 1000:.0f} ms after the push was begun", 0 < demo.first_task[0] < 30)


def in_image(demo, run):
    """Docker's own word for what ran: one container for each attempt, from the image, without privileges."""
    found = demo.backing.containers()
    image = json.loads(demo.backing.docker("image", "inspect", demo.backing.image))[0]["Id"]
    attempts = sorted(demo.results(run))
    demo.check(f"each of its {len(attempts)} attempts was a container of its own, from the image {image[7:19]}",
               sorted(one["Config"]["Labels"]["dev.kickwheel.attempt"] for one in found) == attempts
               and all(one["Image"] == image for one in found), found)
    demo.check("none had privileges, a network, or root as its user",
               all(one["HostConfig"]["CapDrop"] == ["ALL"] and not one["HostConfig"]["Privileged"]
                   and "no-new-privileges" in one["HostConfig"]["SecurityOpt"] and one["HostConfig"]["NetworkMode"] == "none"
                   and one["Config"]["User"].split(":")[0] not in ("", "0", "root") for one in found),
               [one["HostConfig"] for one in found])


def read_note(demo, commit):
    done = subprocess.run(
        ["git", "-C", demo.repo, "notes", "--ref", "kickwheel", "show", commit],
        env=demo.env, capture_output=True, text=True,
    )
    return done.stdout if done.returncode == 0 else None


def docs_push(demo):
    demo.title("2. A push that touches only docs/ starts nothing")
    before = {run["id"] for run in demo.runs()}
    with open(demo.work / "docs" / "notes.md", "a") as notes:
        notes.write("\nWritten down during the demo.\n")
    commit = demo.commit("Notes")
    demo.push()

    def decided():
        for event in demo.ask("events", "ls")["items"]:
            if event["event"].get("data", {}).get("after") == commit and event["state"] == "decided":
                return event
        return None

    event = demo.until("the push to be decided", decided)
    demo.kickwheel("explain", event["id"])
    explained = demo.ask("explain", event["id"])
    decision = next(found for found in explained["decisions"] if found["workflow"] == "digits-retrain")
    demo.check("the event is decided, and no run came of it", event["runs"] == [] and {run["id"] for run in demo.runs()} == before)
    demo.check("explain names the path filter", decision["decision"] == "filtered" and decision["clause"] == "paths", decision)
    demo.check("explain shows the paths seen: docs/notes.md", explained["changed_paths"] == ["docs/notes.md"]
               and "docs/notes.md" in decision["seen"], explained)


def new_data(demo):
    demo.title("3. One new data file retrains, and only that file is prepared")
    before = {run["id"] for run in demo.runs()}
    old = demo.production()
    demo.say(f"$ cp later/{LATE_FILE} data/")
    shutil.copyfile(demo.later / LATE_FILE, demo.data / LATE_FILE)
    run = demo.new_run(before, lambda run: True)
    demo.kickwheel("runs", "get", run["id"], "--watch")
    detail = demo.get(run["id"])
    best = demo.show_trials(detail)
    demo.check(f"run {run['id']} succeeded", detail["state"] == "succeeded", detail["state"])
    event = next(found for found in demo.ask("events", "ls")["items"] if run["id"] in found["runs"])["event"]
    demo.check("its cause is version 2 of the dataset, with one file more",
               event["data"]["version"] == 2 and event["data"]["added"] == [LATE_FILE], event)
    prepared = demo.tasks(detail, "prepare")
    fresh = [task for task in prepared if not task["cached_from"]]
    demo.check(f"5 files, of which 4 came from the cache and only {LATE_FILE} was prepared",
               len(prepared) == 5 and [task["matrix"]["file"]["path"] for task in fresh] == [LATE_FILE], prepared)
    demo.check("every setting was trained again", not any(task["cached_from"] for task in demo.tasks(detail, "train")))
    old_task = next(task for task in prepared if task["cached_from"])
    for task, result in ((old_task, "hit"), (fresh[0], "miss")):
        demo.kickwheel("cache", "why", task["id"])
        why = demo.ask("cache", "why", task["id"])
        demo.check(f"cache why calls {task['id'].split('/')[1]} a {result}", why["result"] == result, why)
    gated(demo, detail, best, old)


def gated(demo, detail, best, old):
    """The production model was replaced if, and only if, the new one's loss is lower."""
    gate = demo.tasks(detail, "gate")[0]["outputs"]
    demo.say(f"  gate: {gate['reason']}")
    now = demo.production()
    demo.check("the gate's verdict follows from the two losses",
               gate["better"] == (best["metrics"]["val_loss"] < old["metrics"]["val_loss"]), (gate, best, old))
    if gate["better"]:
        demo.check(f"the new model is better: version {now['version']} is in production now",
                   now["version"] == old["version"] + 1
                   and now["artifact"]["digest"] == best["outputs"]["model"]["digest"], now)
        demo.evaluate_again(now, best["metrics"])
    else:
        demo.check(f"the new model is not better: version {old['version']} stays in production", now == old, now)


def killed(demo):
    demo.title("4. The engine is killed in the middle of training")
    before = {run["id"] for run in demo.runs()}
    old = demo.production()
    script = demo.work / "src" / "train.py"
    text = script.read_text()
    script.write_text(text.replace("BATCH = 16", "BATCH = 20"))
    commit = demo.commit("Larger batches")
    demo.push()
    run = demo.new_run(before, lambda run: run["commit"] == commit)["id"]

    def in_the_middle():
        detail = demo.get(run)
        trials = demo.tasks(detail, "train")
        show_bars(demo, trials)
        done = [task for task in trials if task["state"] == "succeeded"]
        middle = [task for task in trials if task["state"] == "running" and task["pid"]
                  and KILL_FROM <= (task["progress"] or 0) <= KILL_TO]
        return (detail, middle) if done and middle else None

    detail, running = demo.until("some trials to be done and one to be in its middle", in_the_middle, 120, 0.25)
    finished = {task["id"]: task for step in detail["steps"] for task in step["tasks"] if task["state"] == "succeeded"}
    places = {task["id"]: demo.backing.whereabouts(attempt_name(task), task["pid"]) for task in running}
    os.kill(demo.server.pid, signal.SIGKILL)
    demo.server.wait()
    demo.say(demo.paint("31", f"$ kill -KILL {demo.server.pid}") + "   (the engine)")
    for task in running:
        place = places[task["id"]]
        demo.check(f"{task['id'].split('/')[1]} runs on without the engine", place["tree"]
                   and demo.backing.whereabouts(attempt_name(task), task["pid"]) == place, place)
        demo.say(f"    {demo.backing.describe(place, task['pid'])}")
    demo.server = None
    demo.start_engine()
    shown = " ".join(without_password(arg) for arg in demo.serve_args())
    demo.say(demo.paint("2", f"$ kickwheel {shown}") + f"   (process {demo.server.pid})")
    again = demo.get(run)
    by_id = {task["id"]: task for task in demo.tasks(again, "train")}
    adopted = 0
    for task in running:
        now = by_id[task["id"]]
        if now["state"] == "running":
            adopted += 1
            place = demo.backing.whereabouts(attempt_name(now), now["pid"])
            what = "container, same start, same process inside" if demo.backing.in_containers() else "process, same start time"
            demo.check(f"{task['id'].split('/')[1]} was adopted: same {what}, first attempt",
                       now["pid"] == task["pid"] and place == places[task["id"]] and now["attempt"] == 1, (now, place))
    demo.check("at least one training task was adopted while it ran", adopted > 0, by_id)
    demo.kickwheel("runs", "get", run, "--watch")
    detail = demo.get(run)
    best = demo.show_trials(detail)
    demo.check(f"the same run {run} succeeded", detail["state"] == "succeeded", detail["state"])
    demo.check("it is the only run of that push", len(demo.runs()) == len(before) + 1)
    after = {task["id"]: task for step in detail["steps"] for task in step["tasks"]}
    demo.check(f"none of the {len(finished)} tasks that were finished was repeated",
               all(after[key] == task for key, task in finished.items()),
               [(task, after[key]) for key, task in finished.items() if after[key] != task])
    demo.check("every task needed one attempt only", all(task["attempt"] <= 1 for task in after.values()))
    attempts = sorted(demo.results(run))
    demo.check("and the runners' own records agree: four attempts, one for each setting",
               attempts == [f"{run}.train.{index}.1" for index in range(4)], attempts)
    for index in range(4):
        log = demo.run(demo.binary, "logs", run, f"train[{index}]")
        epochs = [line.split()[1] for line in log.splitlines() if line.lstrip().startswith("epoch")]
        demo.check(f"the log of train[{index}] is whole: each of {len(epochs)} epochs once, in order",
                   epochs == [str(number) for number in range(1, EPOCHS + 1)], log[-400:])
    gated(demo, detail, best, old)
    return run


def attempt_name(task):
    """The name of a task's present attempt, as folders and containers have it."""
    run, _, step = task["id"].partition("/")
    return f"{run}.{step.partition('[')[0]}.{task['index']}.{task['attempt']}"


def the_log(demo, killed):
    demo.title("5. What the broker's log says")
    bus_log.check_events(demo)
    bus_log.check_runs(demo, killed)


def show_bars(demo, trials):
    """One line with a bar for each trial: rewritten in place on a terminal, else not shown."""
    if demo.colour:
        bars = []
        for task in trials:
            share = 1.0 if task["state"] == "succeeded" else task["progress"] or 0.0
            bars.append(f"train[{task['index']}] " + "█" * round(share * 12) + "·" * (12 - round(share * 12)))
        print("\r  " + "   ".join(bars) + "  ", end="" if any(task["state"] != "succeeded" for task in trials) else "\n", flush=True)


def sweep_old_folders(kept_too=False):
    """Ends and removes what earlier demos left behind; one that goes on, or whose engine was kept, stays."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"kickwheel-demo-{os.getuid()}-*"):
        if not folder.is_dir() or folder.stat().st_uid != os.getuid():
            continue
        if processes.runs_with(int(folder.name.rsplit("-", 1)[1]), os.fsencode(__file__)):
            continue
        if not kept_too and any(processes.runs_with(pid, b"serve") for pid, _ in processes.of_folder(folder)):
            continue
        if end_everything(folder, Backing.of_folder(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            if kept_too:
                print(f"ended {folder}", flush=True)


def end_everything(folder, backing):
    """The engine first, then the services; true when no process is left. What cannot be removed elsewhere is told."""
    processes.end_all(folder, [folder / "services"])
    problems = backing.end()
    left = processes.end_all(folder)
    for problem in problems + [f"could not end the process {named}" for named in left]:
        print(problem, flush=True)
    return not left


def tell(demo):
    demo.say(f"In {demo.base}, engine at {demo.url}")
    demo.run(demo.python, PROJECT / "src" / "export_data.py", demo.data)
    demo.later.mkdir()
    (demo.data / LATE_FILE).rename(demo.later / LATE_FILE)
    demo.start_engine()
    first_push(demo)
    docs_push(demo)
    new_data(demo)
    run = killed(demo)
    if "kafka" in demo.backing.wanted:
        the_log(demo, run)

    demo.title("The end")
    now = demo.production()
    from_push, from_receipt = demo.first_task
    demo.say(f"  from push to first task     {from_push * 1000:.0f} ms (from the event's receipt {from_receipt * 1000:.0f} ms)")
    demo.say(f"  in production               digits version {now['version']}, {now['artifact']['digest']}")
    demo.say(f"  everything is in            {demo.base}")
    for name, what in (("digits.git", "the repository"), ("data", "the watched data folder"),
                       ("engine", "the engine's data folder: artifacts, the pool's logs, its database if there is no other"),
                       ("serve.log", "what the engine printed")):
        demo.say(f"    {name:<12}              {what}")
    spent = time.monotonic() - demo.began
    demo.check(f"all of it took {spent:.0f} s, under {demo.limit:.0f} s", spent < demo.limit)
    demo.say(f"\n{demo.checked} claims checked, all true.")


def main():
    parser = argparse.ArgumentParser(description="Tells and checks the story of one push.")
    parser.add_argument("--binary", type=pathlib.Path, help="the kickwheel binary")
    parser.add_argument("--python", type=pathlib.Path, help="folder of a virtual environment with scikit-learn")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    parser.add_argument("--kafka", action="store_true", help="events travel through a real Kafka")
    parser.add_argument("--postgres", action="store_true", help="the engine keeps its state in a real PostgreSQL")
    parser.add_argument("--docker", action="store_true", help="scripts run in real containers")
    parser.add_argument("--end", action="store_true", help="tell nothing; end what demos with --keep left running")
    parser.add_argument("--seconds", type=float, help="what all of it may take")
    options = parser.parse_args()
    # A plain kill must clean up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sweep_old_folders(options.end)
    if options.end:
        return 0
    if not options.binary or not options.python:
        parser.error("--binary and --python are needed")
    wanted = [kind for kind in KINDS if getattr(options, kind)]
    limit = options.seconds or (TIME_LIMIT_IN_CONTAINERS if options.docker else TIME_LIMIT)
    demo = Demo(options.binary.resolve(), options.python, limit, wanted)
    demo.base.mkdir(mode=0o700)
    keep = False
    try:
        if wanted:
            demo.title("0. The services")
            demo.backing.start(demo.pip, demo.say)
            demo.began = time.monotonic()
        tell(demo)
        keep = options.keep
    except Exception as failure:  # noqa: BLE001: whatever went wrong, it is told and everything is ended
        reason = traceback.format_exc()
        if isinstance(failure, Failed):
            reason = str(failure)
        elif isinstance(failure, subprocess.CalledProcessError):
            argv = " ".join(str(arg) for arg in failure.cmd)
            reason = f"`{argv}` ended with code {failure.returncode}\n{failure.stderr or ''}"
        print(demo.paint("31", "\n  ✗ NOT TRUE: ") + reason, flush=True)
        log = demo.base / "serve.log"
        if log.exists():
            print(f"\nthe last lines of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]), flush=True)
        return 1
    finally:
        if not keep:
            end_everything(demo.base, demo.backing)
    if keep:
        print_addresses(demo)
    return 0


def print_addresses(demo):
    """Where everything is, for people and programs, and what ends it."""
    demo.say("\nAll of it runs on; `./dev demo --end` ends it.\n")
    demo.say(f"url={demo.url}\nrepo={demo.repo}\ndata={demo.data}")
    demo.say(f"bus={demo.backing.bus_url()}\ndatabase={demo.backing.database_url(demo.engine)}")
    if demo.backing.in_containers():
        demo.say(f"docker={demo.backing.addresses['docker']}\nimage={demo.backing.image}")
    demo.say(f"token_file={demo.engine / 'token'}\npid={demo.server.pid}")


if __name__ == "__main__":
    sys.exit(main())
