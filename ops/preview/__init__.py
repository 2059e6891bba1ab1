"""A small CloudWatch on one's own machine: the deployment's dashboards, alarms and queries over a service that runs here."""
