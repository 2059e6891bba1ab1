-- Fails where the service could not answer: the database is away, not migrated, or closed to the service's role.
SELECT (SELECT count(*) FROM (SELECT FROM clients LIMIT 1) AS clients)
     + (SELECT count(*) FROM (SELECT FROM idempotency_keys LIMIT 1) AS keys)
