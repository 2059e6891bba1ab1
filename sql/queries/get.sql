-- One client as a JSON object, in UTF-8; no row where there is none.
SELECT convert_to(row_to_json(client)::text, 'UTF8')
FROM (SELECT id, name, money::text AS money FROM clients WHERE id = $1) AS client
