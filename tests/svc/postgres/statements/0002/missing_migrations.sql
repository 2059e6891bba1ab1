-- Which of the migrations $1 the database does not have. Those that only the database has do not matter: a newer schema
-- serves this build, too.
SELECT ARRAY(
  SELECT needed FROM unnest($1::text[]) AS needed
  WHERE needed NOT IN (SELECT version FROM schema_migrations)
  ORDER BY needed
)
