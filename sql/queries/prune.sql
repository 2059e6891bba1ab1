-- Forgets up to $1 idempotency keys that are older than 24 hours, the time for which the API promises to know them.
DELETE FROM idempotency_keys
WHERE key IN (
  SELECT key FROM idempotency_keys
  WHERE created_at < now() - interval '24 hours'
  LIMIT $1
)
