# Names, alarms and the outputs that later steps read.

mock_provider "aws" {
  source = "./tests"
}

mock_provider "aws" {
  alias  = "us_east_1"
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
    condition     = toset(keys(aws_cloudwatch_metric_alarm.main)) == toset(flatten([[for row in local.rows.alarms : can(row.suppressor) || can(row.after) ? "${row.name}-measured" : row.name], [for row in local.rows.burn_rates : [for rate in keys(row.rates) : ["${row.objective}-${rate}-long", "${row.objective}-${rate}-short"]]]]))
    error_message = "Each row and each window of a burn rate is an alarm, and there are no other alarms."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_composite_alarm.main)) == toset(concat([for row in local.rows.burn_rates : row.name], [for row in local.rows.alarms : row.name if can(row.suppressor) || can(row.after)]))
    error_message = "Each burn rate is a composite alarm, and so is each row that waits for another alarm."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.main["availability"].alarm_rule == "(ALARM(\"olimac-availability-fast-long\") AND ALARM(\"olimac-availability-fast-short\")) OR (ALARM(\"olimac-availability-medium-long\") AND ALARM(\"olimac-availability-medium-short\"))"
    error_message = "The alarms of both windows of a rate have to fire, and either rate pages."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.main["no-telemetry"].alarm_rule == "(ALARM(\"olimac-no-telemetry-measured\") AND ALARM(\"olimac-deployed\"))"
    error_message = "Missing metrics page only after the first deployment."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.outage.alarm_rule == "ALARM(\"olimac-database-lost\") OR ALARM(\"olimac-unreachable-measured\")"
    error_message = "A lost database and an unreachable name are an outage."
  }

  assert {
    condition     = abs(aws_cloudwatch_metric_alarm.main["availability-fast-long"].threshold - 1.44) < 0.000001
    error_message = "The threshold is 14.4 times a budget of 0.1 %."
  }
}

run "one_fault_is_one_page" {
  assert {
    condition     = alltrue([for name in ["availability", "latency", "balancer-errors", "traffic-lost", "no-telemetry", "pods-below-minimum"] : aws_cloudwatch_composite_alarm.main[name].actions_suppressor[0].alarm == "olimac-outage"])
    error_message = "What follows from an outage notifies no one."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.main["unreachable"].actions_suppressor[0].alarm == "olimac-database-lost"
    error_message = "The page of a lost database is the only one."
  }

  assert {
    condition     = length(aws_cloudwatch_composite_alarm.main["availability-slow"].actions_suppressor) == 0
    error_message = "A ticket on a budget is not suppressed."
  }
}

run "alarms_read_what_is_outside_the_pods" {
  assert {
    condition     = contains(aws_cloudwatch_metric_alarm.main["balancer-errors-measured"].metric_query[*].expression, "SELECT SUM(HTTPCode_ELB_5XX) FROM SCHEMA(\"AWS/ELB\", LoadBalancerName)")
    error_message = "The load balancer is found without its name."
  }

  assert {
    condition     = one(aws_cloudwatch_metric_alarm.main["unreachable-measured"].metric_query).metric[0].dimensions.HealthCheckId == aws_route53_health_check.public_name.id
    error_message = "The alarm reads the check of the public name."
  }

  assert {
    condition     = aws_route53_health_check.public_name.fqdn == "flask.olimac.link" && aws_route53_health_check.public_name.type == "HTTPS"
    error_message = "The check asks for the public name over HTTPS."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.main["traffic-lost-measured"].threshold_metric_id == "band"
    error_message = "Traffic is compared with what is usual."
  }

  assert {
    condition     = !can(regex("HEALTH_CHECK|CERTIFICATE", aws_cloudwatch_dashboard.main["platform"].dashboard_body)) && length(aws_cloudwatch_metric_alarm.elsewhere) == 0
    error_message = "Dashboards have the ids, and us-east-1 needs no second topic."
  }
}

run "in_another_region_the_check_has_its_own_alarm" {
  variables {
    region = "eu-west-1"
    zones  = ["eu-west-1a", "eu-west-1b"]
  }

  assert {
    condition     = keys(aws_cloudwatch_metric_alarm.elsewhere) == ["unreachable"] && !contains(keys(aws_cloudwatch_composite_alarm.main), "unreachable")
    error_message = "The alarm is where the metrics of Route 53 are."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.elsewhere["unreachable"].alarm_actions == toset([aws_sns_topic.elsewhere["unreachable"].arn])
    error_message = "It has a topic in its region."
  }

  assert {
    condition     = aws_cloudwatch_composite_alarm.outage.alarm_rule == "ALARM(\"olimac-database-lost\")"
    error_message = "A composite alarm reads only alarms of its region."
  }
}

run "alarms_go_to_the_topic_of_their_severity" {
  assert {
    condition     = alltrue([for row in local.rows.alarms : aws_cloudwatch_metric_alarm.main[row.name].alarm_actions == toset([aws_sns_topic.alarms[row.severity].arn]) if row.severity != "part" && !can(row.suppressor) && !can(row.after)])
    error_message = "An alarm goes to the topic of its severity."
  }

  assert {
    condition     = alltrue([for row in concat(local.rows.burn_rates, values(local.guarded)) : aws_cloudwatch_composite_alarm.main[row.name].alarm_actions == toset([aws_sns_topic.alarms[row.severity].arn])])
    error_message = "A composite alarm goes to the topic of its severity."
  }

  assert {
    condition     = alltrue([for name, alarm in aws_cloudwatch_metric_alarm.main : length(alarm.alarm_actions) == 0 if contains(keys(local.windows), name) || endswith(name, "-measured") || name == "deployed"])
    error_message = "A part of other alarms notifies no one."
  }
}

run "a_name_that_is_invalid_for_roles_is_refused" {
  command = plan

  variables {
    name = "Olimac!"
  }

  expect_failures = [var.name]
}
