"""What the broker's log says about a demo on Kafka, read back with Kafka's own consumer and compared with the engine.

Two topics: that of the events, which everything came in by, and that of the runs, on which the journals are told. The
engine is asked only for what is compared with them.
"""

import json
import sqlite3

PIPELINE_BEGINS = ["dev.cdevents.pipelinerun.queued.0.3.0", "dev.cdevents.pipelinerun.started.0.3.0"]
PIPELINE_ENDS = "dev.cdevents.pipelinerun.finished.0.3.0"
TASK_ENDS = "dev.cdevents.taskrun.finished.0.3.0"
PUBLISHED = "dev.cdevents.artifact.published.0.3.0"


def read(backing, topic):
    """The records of a topic: [(partition, offset, key, CloudEvent)], each partition in its order."""
    printed = backing.script("kafka", "read", backing.addresses["kafka"], f"{backing.topics}.{topic}")
    records = []
    for line in printed.splitlines():
        partition, offset, key, value = line.split("\t", 3)
        records.append((int(partition), int(offset), key, json.loads(value)))
    return sorted(records, key=lambda record: record[:2])


def check_events(demo):
    """Every event came by the topic, once, in its lane's partition; and the engine has stored how far it has read."""
    backing = demo.backing
    events = demo.ask("events", "ls", "--limit", "1000")["items"]
    records = read(backing, "events")
    for partition, offset, _, event in records:
        demo.say(f"  {backing.topics}.events  {partition}:{offset}  {event['type']}  {event.get('subject', '')}")
    known = sorted((found["event"]["source"], found["event"]["id"]) for found in events)
    carried = [(event["source"], event["id"]) for *_, event in records]
    demo.check(f"the events topic holds each of the {len(known)} events, once, and nothing else",
               sorted(carried) == known, {"topic": carried, "engine": known})
    demo.check("each has the key of its lane, source|subject, and each lane has one partition",
               all(key == f"{event['source']}|{event.get('subject') or ''}" for _, _, key, event in records)
               and len({(key, partition) for partition, _, key, _ in records}) == len({key for *_, key, _ in records}),
               [(partition, key) for partition, _, key, _ in records])
    read_to = {}
    for partition, offset, *_ in records:
        read_to[partition] = offset + 1
    stored = demo.until("all partitions to be read to their ends", lambda: matching_offsets(demo, read_to))
    demo.check(f"the database holds the offset at which each partition is read on: {stored}", stored == read_to, stored)
    demo.check("nothing waits in the spool, nothing is in quarantine",
               rows(demo, "SELECT count(*) FROM spool") == [["0"]] and rows(demo, "SELECT count(*) FROM quarantine") == [["0"]]
               and not read(backing, "quarantine"))


def rows(demo, sql):
    """Rows of the engine's database, as text."""
    if "postgres" in demo.backing.wanted:
        return demo.backing.query(sql)
    with sqlite3.connect(f"file:{demo.engine / 'kickwheel.db'}?mode=ro", uri=True) as database:
        return [[str(value) for value in row] for row in database.execute(sql)]


def matching_offsets(demo, wanted):
    """The stored offsets of partitions that hold anything, once they are the wanted ones."""
    topic = f"{demo.backing.topics}.events"
    found = {int(partition): int(offset) for name, partition, offset
             in rows(demo, "SELECT topic, partition, next_offset FROM bus_partitions") if topic in name and int(offset) > 0}
    return found if found == wanted else None


def check_runs(demo, killed):
    """The topic of the runs tells each run from its beginning to its end; `killed` is the one that saw a kill."""
    backing = demo.backing
    runs = {run["id"]: demo.get(run["id"]) for run in demo.runs()}

    def told():
        found = read(backing, "runs")
        ended = {event["subject"] for *_, event in found if event["type"] == PIPELINE_ENDS}
        return found if ended >= set(runs) else None

    records = demo.until("the ends of all runs to be told", told)
    demo.check(f"the runs topic tells {len(runs)} runs and nothing else", {event["subject"] for *_, event in records} == set(runs))
    # Ids are ordered by time.
    for run, detail in sorted(runs.items()):
        check_run(demo, run, detail, [record for record in records if record[3]["subject"] == run], run == killed)


def check_run(demo, run, detail, records, killed):
    events = [event for *_, event in records]
    ids = [event["id"] for event in events]
    once = list({event["id"]: event for event in events}.values())
    # As our own commands shorten it: the first part is but a time.
    name = run[:18]
    if killed:
        # At least once, with the same ids: that is what is promised about this topic after a kill.
        again = len(ids) - len(once)
        demo.check(f"run {name}, which saw the kill: {len(once)} CDEvents, " + (f"{again} of them told again as they were"
                   if again else "none of them double"), all(event in once for event in events), ids)
    else:
        demo.check(f"run {name}: {len(ids)} CDEvents, none of them double", len(ids) == len(set(ids)), ids)
    types = [event["type"] for event in once]
    numbers = [tuple(int(part) for part in event["id"].rsplit(":", 2)[1:]) for event in once]
    demo.check("  in the journal's order, all on one partition: queued, started, …, finished",
               numbers == sorted(numbers) and types[:2] == PIPELINE_BEGINS and types[-1] == PIPELINE_ENDS
               and types.count(PIPELINE_ENDS) == 1 and len({partition for partition, *_ in records}) == 1, types)
    finished = [event["data"]["subject"] for event in once if event["type"] == TASK_ENDS]
    tasks = sorted(task["id"] for step in detail["steps"] for task in step["tasks"] if task["state"] == "succeeded")
    demo.check(f"  with the end of each of its {len(tasks)} tasks, all successful",
               sorted(subject["id"] for subject in finished) == tasks
               and all(subject["content"]["outcome"] == "success" for subject in finished), finished)
    promoted = [event["data"]["subject"]["id"] for event in once if event["type"] == PUBLISHED]
    digests = [version["artifact"]["digest"] for version in demo.ask("models", "get", "digits")["versions"]
               if (version["task"] or "").startswith(f"{run}/")]
    demo.check(f"  and the model that it published: {len(digests)}", len(promoted) == len(digests)
               and all(digest.removeprefix("sha256:") in "".join(promoted) for digest in digests), (promoted, digests))
