-- The tables of ledger version 3, as HighNoon 0.1.0 made them until commit 9d00554. For tests of the upgrade.

CREATE TABLE hn_bundles (
    digest VARCHAR(64) NOT NULL,
    archive BYTEA NOT NULL,
    signature VARCHAR(128) NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (digest)
);

CREATE TABLE hn_leader (
    id INTEGER NOT NULL,
    holder VARCHAR(32) NOT NULL,
    term INTEGER NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT one_leader_row CHECK (id = 1)
);

CREATE TABLE hn_meta (
    key VARCHAR(40) NOT NULL,
    value VARCHAR(200) NOT NULL,
    PRIMARY KEY (key)
);

CREATE TABLE hn_studies (
    id BIGSERIAL NOT NULL,
    name VARCHAR(100) NOT NULL,
    spec JSON NOT NULL,
    state VARCHAR(16) NOT NULL,
    stop_reason VARCHAR(40),
    queue VARCHAR(16) NOT NULL,
    submitted_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    ended_at DOUBLE PRECISION,
    PRIMARY KEY (id),
    CONSTRAINT state_is_known CHECK (state IN ('running', 'paused', 'cancelling', 'finished', 'cancelled')),
    UNIQUE (name)
);

CREATE TABLE hn_workers (
    id VARCHAR(32) NOT NULL,
    host VARCHAR(255) NOT NULL,
    pid INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    queues JSON NOT NULL,
    state VARCHAR(16) NOT NULL,
    started_at DOUBLE PRECISION NOT NULL,
    seen_at DOUBLE PRECISION NOT NULL,
    facts JSON,
    state_reason TEXT,
    reinstated_at DOUBLE PRECISION,
    PRIMARY KEY (id),
    CONSTRAINT state_is_known CHECK (state IN ('active', 'draining', 'quarantined', 'gone'))
);

CREATE TABLE hn_tickets (
    id BIGSERIAL NOT NULL,
    study_id BIGINT NOT NULL,
    ordinal INTEGER NOT NULL,
    state VARCHAR(16) NOT NULL,
    attempt INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    not_before DOUBLE PRECISION NOT NULL,
    queued_at DOUBLE PRECISION,
    worker_id VARCHAR(32),
    lease_expires_at DOUBLE PRECISION,
    cancel_requested BOOLEAN DEFAULT false NOT NULL,
    params JSON,
    trial_id INTEGER,
    trial_number INTEGER,
    step INTEGER,
    rss_bytes BIGINT,
    ending VARCHAR(16),
    value DOUBLE PRECISION,
    outcome JSON,
    settled_at DOUBLE PRECISION,
    closed_at DOUBLE PRECISION,
    PRIMARY KEY (id),
    CONSTRAINT one_ticket_per_ordinal UNIQUE (study_id, ordinal),
    CONSTRAINT state_is_known CHECK (state IN ('waiting', 'queued', 'leased', 'settled', 'closed', 'cancelled')),
    CONSTRAINT leased_means_a_lease CHECK ((state = 'leased') = (lease_expires_at IS NOT NULL)),
    CONSTRAINT settled_means_an_outcome CHECK (state NOT IN ('settled', 'closed') OR outcome IS NOT NULL),
    FOREIGN KEY(study_id) REFERENCES hn_studies (id) ON DELETE CASCADE
);

CREATE INDEX hn_tickets_by_state ON hn_tickets (study_id, state);

CREATE TABLE hn_attempts (
    ticket_id BIGINT NOT NULL,
    attempt INTEGER NOT NULL,
    worker_id VARCHAR(32) NOT NULL,
    host VARCHAR(255) NOT NULL,
    pid INTEGER NOT NULL,
    trial_number INTEGER,
    log_path TEXT,
    started_at DOUBLE PRECISION NOT NULL,
    ended_at DOUBLE PRECISION,
    ending VARCHAR(16),
    cause VARCHAR(40),
    message TEXT,
    exit_status INTEGER,
    signal VARCHAR(16),
    peak_rss_bytes BIGINT,
    log_tail TEXT,
    memory JSON,
    code VARCHAR(64),
    PRIMARY KEY (ticket_id, attempt),
    FOREIGN KEY(ticket_id) REFERENCES hn_tickets (id) ON DELETE CASCADE
);

CREATE INDEX hn_attempts_of_worker ON hn_attempts (worker_id, ended_at);

INSERT INTO hn_meta (key, value) VALUES ('schema_version', '3');
