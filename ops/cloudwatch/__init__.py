"""What calls people and what they look at: alarms, dashboards, queries and runbooks, as data that is tested."""
