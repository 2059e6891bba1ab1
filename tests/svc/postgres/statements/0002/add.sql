-- Adds clients; of those with the same idempotency key, only the first. Gives each item's client id, whether its fields
-- are those of its key's first use, and whether it is a replay of that use. A key that is known already takes no new id,
-- so that a retry also succeeds where the sequence has none. All batches insert their keys in order, so that two cannot
-- deadlock. The update changes nothing, but makes a concurrent retry wait for the key's first use and see its row.
WITH items AS (
  SELECT name, money, key, fingerprint, place
  FROM unnest($1::text[], $2::text::numeric[], $3::text[], $4::text[]::bytea[])
    WITH ORDINALITY AS items (name, money, key, fingerprint, place)
), keyless AS MATERIALIZED (
  SELECT nextval('clients_id_seq') AS id, name, money, place
  FROM items
  WHERE key IS NULL
), known AS MATERIALIZED (
  SELECT key, fingerprint, client_id FROM idempotency_keys WHERE key = ANY ($3::text[])
), first_uses AS MATERIALIZED (
  SELECT nextval('clients_id_seq') AS id, name, money, key, fingerprint, place
  FROM (SELECT DISTINCT ON (key) * FROM items WHERE key IS NOT NULL ORDER BY key, place) AS firsts
  WHERE key NOT IN (SELECT key FROM known)
), claimed AS (
  INSERT INTO idempotency_keys (key, fingerprint, client_id)
  SELECT key, fingerprint, id FROM first_uses ORDER BY key
  ON CONFLICT (key) DO UPDATE SET key = excluded.key
  RETURNING key, fingerprint, client_id
), added AS (
  INSERT INTO clients (id, name, money)
  SELECT id, name, money FROM keyless
  UNION ALL
  SELECT id, name, money FROM first_uses JOIN claimed ON client_id = id
)
SELECT place, id, true AS same_fields, false AS is_replay FROM keyless
UNION ALL
SELECT place, client_id, first_use.fingerprint = items.fingerprint, first_uses.id IS DISTINCT FROM client_id
FROM items JOIN (SELECT * FROM known UNION ALL SELECT * FROM claimed) AS first_use USING (key)
  LEFT JOIN first_uses USING (key, place)
ORDER BY place
