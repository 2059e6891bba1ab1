-- The clients with the ids in $1, an array in its text form, each as its id and its JSON object in UTF-8.
SELECT id, convert_to(row_to_json(client)::text, 'UTF8') AS object
FROM (SELECT id, name, money::text AS money FROM clients WHERE id = ANY ($1::text::bigint[])) AS client
