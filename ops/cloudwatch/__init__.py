"""Alarms, dashboards, saved queries and runbooks, as data that tests check."""
