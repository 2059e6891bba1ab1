-- migrate:up

-- What a retried POST /add has to find again: the first answer, and a digest of the fields it was given for.
-- There is no foreign key: the first answer stays the answer, whatever becomes of the client later.
CREATE TABLE idempotency_keys (
  key         text        PRIMARY KEY CHECK (char_length(key) BETWEEN 1 AND 255),
  fingerprint bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),  -- SHA-256 of name and money
  client_id   bigint      NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- Serves prune. Rows arrive in order of time, so a BRIN index costs an add next to nothing.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys USING brin (created_at);

-- migrate:down

-- Forward only: going back would drop what people stored. Write a new migration instead.
DO $$ BEGIN RAISE EXCEPTION 'migrations of this database only go forward'; END $$;
