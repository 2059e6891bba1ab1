-- Whether the service's role has the rights that it needs to write. Fails where the database is not migrated, or the role
-- may not read. It writes nothing, so that it also works on a read-only server, which can still serve gets.
SELECT has_table_privilege('clients', 'INSERT')
   AND has_sequence_privilege('clients_id_seq', 'USAGE')
   AND has_table_privilege('idempotency_keys', 'INSERT')
   AND has_column_privilege('idempotency_keys', 'key', 'UPDATE')
   AND EXISTS (SELECT id, name, money FROM clients LIMIT 1) IS NOT NULL
   AND EXISTS (SELECT key, fingerprint, client_id FROM idempotency_keys LIMIT 1) IS NOT NULL
