-- Whether the service's role may write. Fails where the database is not migrated, or the role may not read: the last
-- two terms are never false. It writes nothing: a read-only server is ready too, since it can serve gets.
SELECT has_table_privilege('clients', 'INSERT')
   AND has_sequence_privilege('clients_id_seq', 'USAGE')
   AND has_table_privilege('idempotency_keys', 'INSERT')
   AND has_column_privilege('idempotency_keys', 'key', 'UPDATE')
   AND EXISTS (SELECT id, name, money FROM clients) IS NOT NULL
   AND EXISTS (SELECT key, fingerprint, client_id FROM idempotency_keys) IS NOT NULL
