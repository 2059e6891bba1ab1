-- What the database holds: the schema's version, and how many and how new its rows are. It counts all clients.
SELECT
  (SELECT max(version) FROM schema_migrations) AS schema,
  (SELECT count(*) FROM clients) AS clients,
  (SELECT coalesce(max(id), 0) FROM clients) AS newest_client,
  (SELECT coalesce(to_char(max(created_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '') FROM idempotency_keys)
    AS newest_key
