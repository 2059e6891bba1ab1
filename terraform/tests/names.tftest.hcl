# Names, alarms and the outputs that later steps read.

mock_provider "aws" {
  source = "./tests"
}

variables {
  admins = ["arn:aws:iam::123456789012:role/deploy"]
}

run "names_start_with_the_name_of_the_cluster" {
  assert {
    condition     = output.name == "olimac" && output.database_identifier == "olimac" && output.hostname == "flask.olimac.link"
    error_message = "The cluster, its database and the public host name have the expected names."
  }

  assert {
    condition     = alltrue([for role in values(aws_iam_role.pod) : startswith(role.name, "olimac-")])
    error_message = "Names of roles start with the name of the cluster."
  }

  assert {
    condition     = alltrue([for kind in ["application", "dataplane", "host", "performance"] : output.log_groups[kind] == "/aws/containerinsights/olimac/${kind}"])
    error_message = "Log groups have the names that Container Insights expects."
  }

  assert {
    condition     = toset([for kind, group in aws_cloudwatch_log_group.pods : kind if group.log_group_class != "STANDARD"]) == toset(["dataplane", "host"])
    error_message = "A group from which CloudWatch reads metrics, or which a dashboard shows, has the standard class."
  }
}

run "each_row_of_the_file_is_an_alarm" {
  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.main)) == toset(flatten([[for row in local.rows.alarms : row.name], [for row in local.rows.burn_rates : [for window in keys(row.windows) : "${row.name}-${window}"]]]))
    error_message = "Each row and each window of a burn rate is an alarm, and there are no other alarms."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_composite_alarm.main)) == toset([for row in local.rows.burn_rates : row.name])
    error_message = "Each burn rate is a composite alarm."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.main["availability-fast"].alarm_rule == "ALARM(\"olimac-availability-fast-long\") AND ALARM(\"olimac-availability-fast-short\")"
    error_message = "The alarms of both windows have to fire."
  }

  assert {
    condition     = abs(aws_cloudwatch_metric_alarm.main["availability-fast-long"].threshold - 1.44) < 0.000001
    error_message = "The threshold is 14.4 times a budget of 0.1 %."
  }
}

run "alarms_go_to_the_topic_of_their_severity" {
  assert {
    condition     = alltrue([for row in local.rows.alarms : aws_cloudwatch_metric_alarm.main[row.name].alarm_actions == toset([aws_sns_topic.alarms[row.severity].arn])])
    error_message = "An alarm goes to the topic of its severity."
  }

  assert {
    condition     = alltrue([for row in local.rows.burn_rates : aws_cloudwatch_composite_alarm.main[row.name].alarm_actions == toset([aws_sns_topic.alarms[row.severity].arn])])
    error_message = "A composite alarm goes to the topic of its severity."
  }

  assert {
    condition     = alltrue([for name, alarm in aws_cloudwatch_metric_alarm.main : length(alarm.alarm_actions) == 0 if contains(keys(local.windows), name)])
    error_message = "The alarm of a single window notifies no one."
  }
}

run "a_name_that_is_invalid_for_roles_is_refused" {
  command = plan

  variables {
    name = "Olimac!"
  }

  expect_failures = [var.name]
}
