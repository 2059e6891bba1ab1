-- The four clients that a new database starts with. Only an empty table is seeded, so a second seeding changes nothing,
-- and a client who was removed from a database in use stays removed.
BEGIN;

LOCK TABLE clients IN SHARE ROW EXCLUSIVE MODE;

INSERT INTO clients (name, money)
SELECT name, money
FROM (VALUES (1, 'Andres', 200), (2, 'Camilo', 300), (3, 'Laura', 400), (4, 'Felipe', 400)) AS seed (place, name, money)
WHERE NOT EXISTS (SELECT FROM clients)
ORDER BY place;

COMMIT;
