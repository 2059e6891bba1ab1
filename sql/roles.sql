-- The role that the service logs in as. It can read and add clients, store idempotency keys, and read which
-- migrations the database has, and nothing else.
-- It has no password until `migrate` or the database's owner sets one. This script can run any number of times.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clients_service') THEN
    CREATE ROLE clients_service LOGIN;
  END IF;
EXCEPTION
  -- Roles belong to the whole server: a migration of another database created it in the meantime.
  WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

GRANT SELECT ON schema_migrations TO clients_service; -- whether the schema is the one that a build needs
GRANT SELECT, INSERT ON clients TO clients_service;
GRANT USAGE ON SEQUENCE clients_id_seq TO clients_service;
GRANT SELECT, INSERT, UPDATE (key), DELETE ON idempotency_keys TO clients_service;
