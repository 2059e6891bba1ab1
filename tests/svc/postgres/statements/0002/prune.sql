-- Deletes at most $1 idempotency keys that are older than 24 hours, for which the API promises to keep them.
DELETE FROM idempotency_keys
WHERE key IN (
  SELECT key FROM idempotency_keys
  WHERE created_at < now() - interval '24 hours'
  LIMIT $1
)
