-- The role that the service logs in as: it can read and add clients and keep idempotency keys, and nothing else.
-- It has no password until migrate or its owner gives it one. Run it as often as you like.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clients_service') THEN
    CREATE ROLE clients_service LOGIN;
  END IF;
EXCEPTION
  -- Roles belong to the whole server: another database's migration was first.
  WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

GRANT SELECT, INSERT ON clients TO clients_service;
GRANT USAGE ON SEQUENCE clients_id_seq TO clients_service;
GRANT SELECT, INSERT, UPDATE (key), DELETE ON idempotency_keys TO clients_service;
