"""A small CloudWatch on one's own machine: dashboards, alarms, logs and traces of a service that runs here."""
