-- migrate:up

-- What a retry of POST /add has to find: the first response, and a digest of the request's fields.
-- There is no foreign key: a retry gets the first response even where the client was removed since.
CREATE TABLE idempotency_keys (
  key         text        PRIMARY KEY CHECK (char_length(key) BETWEEN 1 AND 255),
  fingerprint bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),  -- SHA-256 of name and money
  client_id   bigint      NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- Serves prune. Rows arrive in order of time, so a BRIN index adds almost nothing to the cost of an insert.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys USING brin (created_at);

-- migrate:down

-- Forward only: a rollback would drop stored data. Write a new migration instead.
DO $$ BEGIN RAISE EXCEPTION 'migrations of this database only go forward'; END $$;
