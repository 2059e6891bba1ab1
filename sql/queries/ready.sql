-- Fails where the service cannot serve requests: the database is not migrated, or the service's role lacks its rights.
SELECT (SELECT count(*) FROM (SELECT FROM clients LIMIT 1) AS clients)
     + (SELECT count(*) FROM (SELECT FROM idempotency_keys LIMIT 1) AS keys)
