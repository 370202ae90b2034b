"""What /proc says about processes: names that survive a reuse of numbers, whole trees, and who belongs to a folder.

Nothing here asks the engine. A process is named by its number and its start time in clock ticks since boot (field 22 of
/proc/PID/stat), because numbers are given again.
"""

import datetime
import os
import pathlib
import signal
import time


def parse_time(text):
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _fields(pid):
    """The fields of /proc/PID/stat from the third on; None when there is no such process or it has ended."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields


def start_ticks(pid):
    """When it started, in clock ticks since boot; None when it does not run."""
    fields = _fields(pid)
    return int(fields[19]) if fields else None


def _all():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def tree(pid):
    """{(pid, start ticks)} of a process and all its descendants; empty when it does not run."""
    children = {}
    for found in _all():
        fields = _fields(found)
        if fields:
            children.setdefault(int(fields[1]), []).append(found)
    named, queue = set(), [pid]
    while queue:
        found = queue.pop()
        ticks = start_ticks(found)
        if ticks is not None:
            named.add((found, ticks))
            queue += children.get(found, [])
    return named


def pid_inside(pid):
    """The number that a process has in the innermost namespace that it is in; None when it does not run."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:")), None)


def runs_with(pid, word):
    """Whether a process of that number runs whose command line has the word."""
    try:
        return word in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def of_folder(folder, but=()):
    """[(pid, start ticks)] of the processes that a demo in `folder` started: the engine, its agent, runners and jobs, and
    its services, unless they are named by one of the folders `but`.

    They carry the folder in their environment, or are programs of ours with the folder among their arguments. A person's
    own shell or editor in that folder is neither.
    """
    needle = os.fsencode(str(folder))
    spared = [os.fsencode(str(other)) for other in but]
    return [
        (pid, ticks)
        for pid in _all()
        if pid != os.getpid()
        and _belongs(pid, needle)
        and not any(_belongs(pid, other) for other in spared)
        and (ticks := start_ticks(pid))
    ]


def _belongs(pid, needle):
    try:
        environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        program = os.fsencode(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False
    if any(_names(entry, needle) for entry in environment if entry.split(b"=")[0] not in (b"PWD", b"OLDPWD", b"_")):
        return True
    ours = os.path.basename(program).startswith(b"kickwheel") or _names(program, needle)
    return ours and _names(command, needle)


def _names(text, needle):
    """Whether the text names the folder; what follows must end its name: folder-1 is not folder-12."""
    at = text.find(needle)
    while at >= 0:
        if not text[at + len(needle) : at + len(needle) + 1].isdigit():
            return True
        at = text.find(needle, at + 1)
    return False


def end_all(folder, but=(), grace=15.0):
    """Ends every process that belongs to `folder` and not to one of `but`, each by its number; returns those that could
    not be ended.

    SIGTERM first; a second round after it, because one that is asked to end may have started another in the meantime.
    """
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace
        asked = set()
        while time.monotonic() < deadline:
            alive = of_folder(folder, but)
            if not alive:
                return []
            for pid, ticks in alive:
                if (pid, ticks) not in asked:
                    asked.add((pid, ticks))
                    try:
                        os.kill(pid, wanted)
                    except ProcessLookupError:
                        pass
            time.sleep(0.1)
    return of_folder(folder, but)
