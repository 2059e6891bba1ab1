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
    condition     = toset(keys(aws_cloudwatch_metric_alarm.main)) == toset([for row in yamldecode(file("../ops/cloudwatch/alarms.yaml")) : row.name])
    error_message = "Each row is an alarm, and there are no others."
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.main : alarm.alarm_actions == toset([aws_sns_topic.alarms.arn])])
    error_message = "Each alarm is sent to the topic."
  }
}

run "a_name_that_roles_cannot_have_is_refused" {
  command = plan

  variables {
    name = "Olimac!"
  }

  expect_failures = [var.name]
}
