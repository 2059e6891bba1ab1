-- Adds a client under an idempotency key, or finds what the key's first use added; and says whether the fields are the same.
-- The update that changes nothing makes a concurrent retry wait for the first use, and see it.
WITH proposed AS (
  SELECT nextval(pg_get_serial_sequence('clients', 'id')) AS id
), claimed AS (
  INSERT INTO idempotency_keys (key, fingerprint, client_id)
  SELECT $3, $4, id FROM proposed
  ON CONFLICT (key) DO UPDATE SET key = excluded.key
  RETURNING client_id, fingerprint
), added AS (
  INSERT INTO clients (id, name, money)
  SELECT id, $1, $2 FROM proposed JOIN claimed ON client_id = id
)
SELECT client_id AS id, fingerprint = $4 AS same_fields FROM claimed
