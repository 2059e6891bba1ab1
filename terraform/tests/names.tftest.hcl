# Names, alarms and what later steps read.

mock_provider "aws" {
  source = "./tests"
}

variables {
  admins = ["arn:aws:iam::123456789012:role/deploy"]
}

run "names_begin_with_the_clusters" {
  assert {
    condition     = output.name == "olimac" && output.database_identifier == "olimac" && output.hostname == "flask.olimac.link"
    error_message = "The cluster, its database and the service's public name."
  }

  assert {
    condition     = alltrue([for role in values(aws_iam_role.pod) : startswith(role.name, "olimac-")])
    error_message = "Roles begin with the cluster's name."
  }

  assert {
    condition     = alltrue([for kind in ["application", "dataplane", "host", "performance"] : output.log_groups[kind] == "/aws/containerinsights/olimac/${kind}"])
    error_message = "Log groups have the names that Container Insights looks for."
  }
}

run "alarms_are_the_rows_of_the_file" {
  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.main)) == toset(flatten([[for row in local.rows.alarms : row.name], [for row in local.rows.burn_rates : [for window in keys(row.windows) : "${row.name}-${window}"]]]))
    error_message = "Each row is an alarm, each window of a burn rate too, and there are no others."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_composite_alarm.main)) == toset([for row in local.rows.burn_rates : row.name])
    error_message = "Each burn rate is a composite."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.main["availability-fast"].alarm_rule == "ALARM(\"olimac-availability-fast-long\") AND ALARM(\"olimac-availability-fast-short\")"
    error_message = "Both windows have to agree."
  }

  assert {
    condition     = abs(aws_cloudwatch_metric_alarm.main["availability-fast-long"].threshold - 1.44) < 0.000001
    error_message = "14.4 times a budget of 0.1 %."
  }
}

run "pages_and_tickets_go_to_whom_they_concern" {
  assert {
    condition     = alltrue([for row in local.rows.alarms : aws_cloudwatch_metric_alarm.main[row.name].alarm_actions == toset([aws_sns_topic.alarms[row.severity].arn])])
    error_message = "An alarm is sent to the topic of its severity."
  }

  assert {
    condition     = alltrue([for row in local.rows.burn_rates : aws_cloudwatch_composite_alarm.main[row.name].alarm_actions == toset([aws_sns_topic.alarms[row.severity].arn])])
    error_message = "So is a composite."
  }

  assert {
    condition     = alltrue([for name, alarm in aws_cloudwatch_metric_alarm.main : length(alarm.alarm_actions) == 0 if contains(keys(local.windows), name)])
    error_message = "A window alone calls nobody."
  }
}

run "a_name_that_roles_cannot_have_is_refused" {
  command = plan

  variables {
    name = "Olimac!"
  }

  expect_failures = [var.name]
}
