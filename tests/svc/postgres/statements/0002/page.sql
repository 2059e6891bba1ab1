-- At most $2 clients after id $1: their JSON objects joined by commas, the last id, and whether more follow.
WITH page AS MATERIALIZED (
  SELECT id, name, money::text AS money FROM clients WHERE id > $1 ORDER BY id LIMIT $2
)
SELECT
  coalesce(convert_to(string_agg(row_to_json(page)::text, ',' ORDER BY id), 'UTF8'), '') AS objects,
  max(id) AS last_id,
  EXISTS (SELECT FROM clients WHERE id > (SELECT max(id) FROM page)) AS more
FROM page
