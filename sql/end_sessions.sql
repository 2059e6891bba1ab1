-- Ends all sessions of the roles in $1 in this database. The service then opens new ones.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = ANY ($1::text[])
