-- The first tables: leases, events in lanes, runs with their journals, named assets, the cache and what is configured.

CREATE TABLE meta (
    key text NOT NULL PRIMARY KEY,
    value text NOT NULL
) WITHOUT ROWID;

-- One row per shard. next_shard_seq is handed out to the owner in blocks, so it is written rarely.
CREATE TABLE shards (
    shard bigint NOT NULL PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text,
    lease_until bigint NOT NULL,
    next_shard_seq bigint NOT NULL
) WITHOUT ROWID;

-- Identities of accepted events. The identity is a digest of project, source and id, so that its length is bounded.
CREATE TABLE seen (
    identity text NOT NULL PRIMARY KEY,
    project text NOT NULL,
    event_key text NOT NULL,
    at bigint NOT NULL
) WITHOUT ROWID;
CREATE INDEX seen_at ON seen (at);

-- One row per lane, locked by accept and by decide. Positions head..next_position are undecided; due says when the
-- first of them may be looked at.
CREATE TABLE lanes (
    lane text NOT NULL PRIMARY KEY,
    project text NOT NULL,
    next_position bigint NOT NULL,
    head bigint NOT NULL,
    due bigint NOT NULL
) WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (due) WHERE head < next_position;

CREATE TABLE undecided (
    lane text NOT NULL,
    position bigint NOT NULL,
    project text NOT NULL,
    event_key text NOT NULL,
    PRIMARY KEY (lane, position)
) WITHOUT ROWID;

CREATE TABLE events (
    event_key text NOT NULL PRIMARY KEY,
    project text NOT NULL,
    type text NOT NULL,
    source text NOT NULL,
    subject text,
    lane text NOT NULL,
    position bigint NOT NULL,
    channel text NOT NULL,
    received_at bigint NOT NULL,
    state text NOT NULL,
    body text NOT NULL,
    reason text,
    enrichment text,
    registry_revision bigint,
    decided_at bigint
) WITHOUT ROWID;
CREATE INDEX events_project ON events (project, event_key);
CREATE INDEX events_quarantined ON events (event_key) WHERE state = 'quarantined';

CREATE TABLE decisions (
    event_key text NOT NULL,
    workflow text NOT NULL,
    project text NOT NULL,
    decision text NOT NULL,
    reason text NOT NULL,
    clause text,
    run text,
    at bigint NOT NULL,
    PRIMARY KEY (event_key, workflow)
) WITHOUT ROWID;

CREATE TABLE ref_heads (
    project text NOT NULL,
    repo text NOT NULL,
    ref_name text NOT NULL,
    head text,
    transition bigint NOT NULL,
    PRIMARY KEY (project, repo, ref_name)
) WITHOUT ROWID;

CREATE TABLE ref_transitions (
    project text NOT NULL,
    repo text NOT NULL,
    ref_name text NOT NULL,
    transition bigint NOT NULL,
    before_commit text,
    after_commit text,
    channels text NOT NULL,
    event_key text NOT NULL,
    moved_head bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, repo, ref_name, transition)
) WITHOUT ROWID;

-- What makes a run unique: a digest of project, workflow and the event's source and id, and the generation.
CREATE TABLE run_identity (
    identity text NOT NULL,
    generation bigint NOT NULL,
    project text NOT NULL,
    shard bigint NOT NULL,
    run text NOT NULL,
    PRIMARY KEY (identity, generation)
) WITHOUT ROWID;

-- recover_at is 0 while commands are open, else wake_at: one small index finds all that recovery has to look at.
CREATE TABLE runs (
    shard bigint NOT NULL,
    run text NOT NULL,
    project text NOT NULL,
    workflow text NOT NULL,
    plan_digest text NOT NULL,
    source_digest text NOT NULL,
    event_source text NOT NULL,
    event_id text NOT NULL,
    event_key text NOT NULL,
    generation bigint NOT NULL,
    branch text,
    commit_id text,
    cause text NOT NULL,
    decision text NOT NULL,
    created_at bigint NOT NULL,
    state text NOT NULL,
    open_commands bigint NOT NULL,
    wake_at bigint,
    recover_at bigint,
    ended_at bigint,
    next_seq bigint NOT NULL,
    last_event bigint,
    sealed bigint NOT NULL,
    PRIMARY KEY (shard, run)
) WITHOUT ROWID;
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
    run text NOT NULL,
    seq bigint NOT NULL,
    previous bigint,
    at bigint NOT NULL,
    event text NOT NULL,
    PRIMARY KEY (shard, shard_seq)
) WITHOUT ROWID;

CREATE TABLE sealed (
    shard bigint NOT NULL,
    run text NOT NULL,
    events bigint NOT NULL,
    body blob NOT NULL,
    PRIMARY KEY (shard, run)
);

CREATE TABLE snapshots (
    shard bigint NOT NULL,
    run text NOT NULL,
    seq bigint NOT NULL,
    body blob NOT NULL,
    PRIMARY KEY (shard, run)
);

CREATE TABLE inbox (
    shard bigint NOT NULL,
    run text NOT NULL,
    input_id text NOT NULL,
    at bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (shard, run, input_id)
) WITHOUT ROWID;

-- One row per name: what a transaction locks before it looks at versions and stages.
CREATE TABLE assets (
    project text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    newest bigint NOT NULL,
    PRIMARY KEY (project, kind, name)
) WITHOUT ROWID;

CREATE TABLE asset_versions (
    project text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    version bigint NOT NULL,
    digest text NOT NULL,
    artifact text NOT NULL,
    metrics text NOT NULL,
    task text,
    at bigint NOT NULL,
    PRIMARY KEY (project, kind, name, version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX asset_versions_task ON asset_versions (project, kind, name, task) WHERE task IS NOT NULL;

CREATE TABLE asset_stages (
    project text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    stage text NOT NULL,
    version bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, kind, name, stage)
) WITHOUT ROWID;

CREATE TABLE cache (
    project text NOT NULL,
    scope text NOT NULL,
    key text NOT NULL,
    task text NOT NULL,
    output text NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, scope, key)
) WITHOUT ROWID;

CREATE TABLE cache_records (
    task text NOT NULL PRIMARY KEY,
    project text NOT NULL,
    workflow text NOT NULL,
    step text NOT NULL,
    key text,
    parts text NOT NULL,
    result text NOT NULL,
    at bigint NOT NULL
) WITHOUT ROWID;
CREATE INDEX cache_records_step ON cache_records (project, workflow, step, task);

CREATE TABLE plans (
    project text NOT NULL,
    plan_digest text NOT NULL,
    source_digest text NOT NULL,
    name text NOT NULL,
    yaml text NOT NULL,
    compiled text NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, plan_digest)
);
CREATE INDEX plans_name ON plans (project, name, at);

CREATE TABLE registry (
    project text NOT NULL,
    revision bigint NOT NULL,
    body text NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, revision)
);

CREATE TABLE paused (
    project text NOT NULL,
    workflow text NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (project, workflow)
) WITHOUT ROWID;

CREATE TABLE repos (
    project text NOT NULL,
    name text NOT NULL,
    url text NOT NULL,
    default_branch text,
    hook bigint NOT NULL,
    reason text,
    PRIMARY KEY (project, name)
) WITHOUT ROWID;

CREATE TABLE watches (
    project text NOT NULL,
    name text NOT NULL,
    path text NOT NULL,
    settle_ms bigint NOT NULL,
    state text NOT NULL,
    PRIMARY KEY (project, name)
);

CREATE TABLE reports (
    run text NOT NULL PRIMARY KEY,
    project text NOT NULL,
    due_at bigint NOT NULL,
    body text NOT NULL,
    attempts bigint NOT NULL,
    reason text
) WITHOUT ROWID;
CREATE INDEX reports_due ON reports (due_at);
