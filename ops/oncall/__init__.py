"""A small CloudWatch on your machine: dashboards, alarms, logs and traces of a service that runs here."""
