-- The first tables: leases, events in lanes, runs with their journals, named assets, the cache and what is configured.

CREATE TABLE meta (
    key text COLLATE "C" NOT NULL PRIMARY KEY,
    value text COLLATE "C" NOT NULL
);

-- One row per shard. next_shard_seq is handed out to the owner in blocks, so it is written rarely.
CREATE TABLE shards (
    shard bigint NOT NULL PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text COLLATE "C",
    lease_until bigint NOT NULL,
    next_shard_seq bigint NOT NULL
);

-- Identities of accepted events. The identity is a digest of project, source and id, so that its length is bounded.
CREATE TABLE seen (
    identity text COLLATE "C" NOT NULL PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    event_key text COLLATE "C" NOT NULL,
    at bigint NOT NULL
);
CREATE INDEX seen_at ON seen (at);

-- One row per lane, locked by accept and by decide. Positions head..next_position are undecided; due says when the
-- first of them may be looked at.
CREATE TABLE lanes (
    lane text COLLATE "C" NOT NULL PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    next_position bigint NOT NULL,
    head bigint NOT NULL,
    due bigint NOT NULL
);
CREATE INDEX lanes_due ON lanes (due) WHERE head < next_position;

CREATE TABLE undecided (
    lane text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    project text COLLATE "C" NOT NULL,
    event_key text COLLATE "C" NOT NULL,
    PRIMARY KEY (lane, position)
);

CREATE TABLE events (
    event_key text COLLATE "C" NOT NULL PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    subject text COLLATE "C",
    lane text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    channel text COLLATE "C" NOT NULL,
    received_at bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL,
    reason text COLLATE "C",
    enrichment text COLLATE "C",
    registry_revision bigint,
    decided_at bigint
);
CREATE INDEX events_project ON events (project, event_key);
CREATE INDEX events_quarantined ON events (event_key) WHERE state = 'quarantined';

CREATE TABLE decisions (
    event_key text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    decision text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    clause text COLLATE "C",
    run text COLLATE "C",
    at bigint NOT NULL,
    PRIMARY KEY (event_key, workflow)
);

CREATE TABLE ref_heads (
    project text COLLATE "C" NOT NULL,
    repo text COLLATE "C" NOT NULL,
    ref_name text COLLATE "C" NOT NULL,
    head text COLLATE "C",
    transition bigint NOT NULL,
    PRIMARY KEY (project, repo, ref_name)
);

CREATE TABLE ref_transitions (
    project text COLLATE "C" NOT NULL,
    repo text COLLATE "C" NOT NULL,
    ref_name text COLLATE "C" NOT NULL,
    transition bigint NOT NULL,
    before_commit text COLLATE "C",
    after_commit text COLLATE "C",
    channels text COLLATE "C" NOT NULL,
    event_key text COLLATE "C" NOT NULL,
    moved_head bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, repo, ref_name, transition)
);

-- What makes a run unique: a digest of project, workflow and the event's source and id, and the generation.
CREATE TABLE run_identity (
    identity text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    project text COLLATE "C" NOT NULL,
    shard bigint NOT NULL,
    run text COLLATE "C" NOT NULL,
    PRIMARY KEY (identity, generation)
);

-- recover_at is 0 while commands are open, else wake_at: one small index finds all that recovery has to look at.
CREATE TABLE runs (
    shard bigint NOT NULL,
    run text COLLATE "C" NOT NULL,
    project text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    plan_digest text COLLATE "C" NOT NULL,
    source_digest text COLLATE "C" NOT NULL,
    event_source text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    event_key text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    branch text COLLATE "C",
    commit_id text COLLATE "C",
    cause text COLLATE "C" NOT NULL,
    decision text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    open_commands bigint NOT NULL,
    wake_at bigint,
    recover_at bigint,
    ended_at bigint,
    next_seq bigint NOT NULL,
    last_event bigint,
    sealed bigint NOT NULL,
    PRIMARY KEY (shard, run)
);
CREATE INDEX runs_run ON runs (run);
CREATE INDEX runs_workflow ON runs (project, workflow, run);
CREATE INDEX runs_event ON runs (event_key);
CREATE INDEX runs_project ON runs (project, run);
CREATE INDEX runs_live ON runs (run) WHERE ended_at IS NULL;
CREATE INDEX runs_ended ON runs (state, run) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_recover ON runs (shard, recover_at) WHERE recover_at IS NOT NULL;
CREATE INDEX runs_unsealed ON runs (ended_at) WHERE ended_at IS NOT NULL AND sealed = 0;

-- In commit order, so that it grows at one end whatever the number of runs. A run's events are a chain: runs.last_event
-- is the newest, previous leads to the one before. That a run has no two events of one seq is checked at its row.
CREATE TABLE journal (
    shard bigint NOT NULL,
    shard_seq bigint NOT NULL,
    run text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    previous bigint,
    at bigint NOT NULL,
    event text COLLATE "C" NOT NULL,
    PRIMARY KEY (shard, shard_seq)
);

CREATE TABLE sealed (
    shard bigint NOT NULL,
    run text COLLATE "C" NOT NULL,
    events bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (shard, run)
);

CREATE TABLE snapshots (
    shard bigint NOT NULL,
    run text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (shard, run)
);

CREATE TABLE inbox (
    shard bigint NOT NULL,
    run text COLLATE "C" NOT NULL,
    input_id text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    body text COLLATE "C" NOT NULL,
    PRIMARY KEY (shard, run, input_id)
);

-- One row per name: what a transaction locks before it looks at versions and stages.
CREATE TABLE assets (
    project text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    newest bigint NOT NULL,
    PRIMARY KEY (project, kind, name)
);

CREATE TABLE asset_versions (
    project text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    artifact text COLLATE "C" NOT NULL,
    metrics text COLLATE "C" NOT NULL,
    task text COLLATE "C",
    at bigint NOT NULL,
    PRIMARY KEY (project, kind, name, version)
);
CREATE UNIQUE INDEX asset_versions_task ON asset_versions (project, kind, name, task) WHERE task IS NOT NULL;

CREATE TABLE asset_stages (
    project text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    stage text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, kind, name, stage)
);

CREATE TABLE cache (
    project text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    output text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, scope, key)
);

CREATE TABLE cache_records (
    task text COLLATE "C" NOT NULL PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    step text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    parts text COLLATE "C" NOT NULL,
    result text COLLATE "C" NOT NULL,
    at bigint NOT NULL
);
CREATE INDEX cache_records_step ON cache_records (project, workflow, step, task);

CREATE TABLE plans (
    project text COLLATE "C" NOT NULL,
    plan_digest text COLLATE "C" NOT NULL,
    source_digest text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    yaml text COLLATE "C" NOT NULL,
    compiled text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, plan_digest)
);
CREATE INDEX plans_name ON plans (project, name, at);

CREATE TABLE registry (
    project text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    body text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, revision)
);

CREATE TABLE paused (
    project text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, workflow)
);

CREATE TABLE repos (
    project text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    url text COLLATE "C" NOT NULL,
    default_branch text COLLATE "C",
    hook bigint NOT NULL,
    reason text COLLATE "C",
    PRIMARY KEY (project, name)
);

CREATE TABLE watches (
    project text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    settle_ms bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    PRIMARY KEY (project, name)
);

CREATE TABLE reports (
    run text COLLATE "C" NOT NULL PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    due_at bigint NOT NULL,
    body text COLLATE "C" NOT NULL,
    attempts bigint NOT NULL,
    reason text COLLATE "C"
);
CREATE INDEX reports_due ON reports (due_at);
