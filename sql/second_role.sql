-- The second role that the service can log in as, with the rights of the first. While pods still log in as one role, a
-- new password goes to the other: so no pod is refused. This script can run any number of times.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clients_service_b') THEN
    CREATE ROLE clients_service_b LOGIN;
  END IF;
EXCEPTION
  WHEN duplicate_object OR unique_violation THEN NULL;  -- another migration created it in the meantime
END
$$;

GRANT clients_service TO clients_service_b;
