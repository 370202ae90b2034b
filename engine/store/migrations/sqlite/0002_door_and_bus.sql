-- What the door and the bus need: triggers, secrets, tokens, spool, partitions, quarantined inputs, relay cursors.

CREATE TABLE triggers (
    project text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    config text NOT NULL,
    paused bigint NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (project, name)
);

-- Cursors and the like, apart from the triggers: they change all the time, and not every one has a row up there.
CREATE TABLE trigger_state (
    project text NOT NULL,
    name text NOT NULL,
    version bigint NOT NULL,
    state text NOT NULL,
    PRIMARY KEY (project, name)
);

-- sealed is encrypted with the key called key_id, which is never in the database.
CREATE TABLE secrets (
    project text NOT NULL,
    name text NOT NULL,
    sealed blob NOT NULL,
    key_id text NOT NULL,
    refs text NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (project, name)
);

-- Without a project a token is for all of them.
CREATE TABLE tokens (
    id text NOT NULL PRIMARY KEY,
    project text,
    name text NOT NULL,
    hash text NOT NULL,
    role text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint
) WITHOUT ROWID;
CREATE UNIQUE INDEX tokens_hash ON tokens (hash);

-- Events on their way to the bus, in the order of their positions. Ingress came from outside while the bus was away.
CREATE TABLE spool (
    position text NOT NULL PRIMARY KEY,
    project text NOT NULL,
    channel text NOT NULL,
    event text NOT NULL,
    at bigint NOT NULL,
    ingress bigint NOT NULL
) WITHOUT ROWID;
CREATE INDEX spool_ingress ON spool (position) WHERE ingress = 1;

-- One row: whether ingress goes to the bus or into the spool.
CREATE TABLE bus_mode (
    id bigint NOT NULL PRIMARY KEY CHECK (id = 1),
    mode text NOT NULL,
    since bigint NOT NULL
) WITHOUT ROWID;
INSERT INTO bus_mode (id, mode, since) VALUES (1, 'direct', 0);

-- Where each partition is read on, by whom. A stopped one is nobody's until it is reset.
CREATE TABLE bus_partitions (
    topic text NOT NULL,
    partition bigint NOT NULL,
    topic_id text NOT NULL,
    next_offset bigint NOT NULL,
    epoch bigint NOT NULL,
    owner text,
    lease_until bigint NOT NULL,
    stopped_reason text,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

-- Raw input that could not become an event.
CREATE TABLE quarantine (
    id text NOT NULL PRIMARY KEY,
    project text NOT NULL,
    origin text NOT NULL,
    reason text NOT NULL,
    headers text NOT NULL,
    body blob NOT NULL,
    received_at bigint NOT NULL,
    state text NOT NULL,
    resolution text,
    resolved_at bigint
);
CREATE INDEX quarantine_held ON quarantine (id) WHERE state = 'held';

-- How far each shard's journal was relayed to the bus.
CREATE TABLE relay_cursors (
    shard bigint NOT NULL PRIMARY KEY,
    shard_seq bigint NOT NULL
) WITHOUT ROWID;

ALTER TABLE repos ADD COLUMN secret text;
ALTER TABLE repos ADD COLUMN poll_ms bigint;
