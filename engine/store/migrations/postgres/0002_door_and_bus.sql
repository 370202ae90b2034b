-- What the door and the bus need: triggers, secrets, tokens, spool, partitions, quarantined inputs, relay cursors.

CREATE TABLE triggers (
    project text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    config text COLLATE "C" NOT NULL,
    paused bigint NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (project, name)
);

-- Cursors and the like, apart from the triggers: they change all the time, and not every one has a row up there.
CREATE TABLE trigger_state (
    project text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    PRIMARY KEY (project, name)
);

-- sealed is encrypted with the key called key_id, which is never in the database.
CREATE TABLE secrets (
    project text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    sealed bytea NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    refs text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (project, name)
);

-- Without a project a token is for all of them.
CREATE TABLE tokens (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    project text COLLATE "C",
    name text COLLATE "C" NOT NULL,
    hash text COLLATE "C" NOT NULL,
    role text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint
);
CREATE UNIQUE INDEX tokens_hash ON tokens (hash);

-- Events on their way to the bus, in the order of their positions. Ingress came from outside while the bus was away.
CREATE TABLE spool (
    position text COLLATE "C" NOT NULL PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    event text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    ingress bigint NOT NULL
);
CREATE INDEX spool_ingress ON spool (position) WHERE ingress = 1;

-- One row: whether ingress goes to the bus or into the spool.
CREATE TABLE bus_mode (
    id bigint NOT NULL PRIMARY KEY CHECK (id = 1),
    mode text COLLATE "C" NOT NULL,
    since bigint NOT NULL
);
INSERT INTO bus_mode (id, mode, since) VALUES (1, 'direct', 0);

-- Where each partition is read on, by whom. A stopped one is nobody's until it is reset.
CREATE TABLE bus_partitions (
    topic text COLLATE "C" NOT NULL,
    partition bigint NOT NULL,
    topic_id text COLLATE "C" NOT NULL,
    next_offset bigint NOT NULL,
    epoch bigint NOT NULL,
    owner text COLLATE "C",
    lease_until bigint NOT NULL,
    stopped_reason text COLLATE "C",
    PRIMARY KEY (topic, partition)
);

-- Raw input that could not become an event.
CREATE TABLE quarantine (
    id text COLLATE "C" NOT NULL PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    origin text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    headers text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    received_at bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    resolution text COLLATE "C",
    resolved_at bigint
);
CREATE INDEX quarantine_held ON quarantine (id) WHERE state = 'held';

-- How far each shard's journal was relayed to the bus.
CREATE TABLE relay_cursors (
    shard bigint NOT NULL PRIMARY KEY,
    shard_seq bigint NOT NULL
);

ALTER TABLE repos ADD COLUMN secret text COLLATE "C";
ALTER TABLE repos ADD COLUMN poll_ms bigint;
