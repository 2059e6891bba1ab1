# Alarms, dashboards and saved queries, which are data in ops/cloudwatch/.

# A page wakes someone; a ticket waits for working hours. A paging service subscribes to the first topic, or to both.
resource "aws_sns_topic" "alarms" {
  for_each = toset(["page", "ticket"])

  name              = "${var.name}-alarms-${each.key}"
  kms_master_key_id = aws_kms_key.main.id
}

resource "aws_sns_topic_subscription" "alarms" {
  for_each = var.alarm_email == "" ? {} : aws_sns_topic.alarms

  topic_arn = each.value.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

locals {
  monitoring = "${path.module}/../ops/cloudwatch"
  rows       = yamldecode(templatefile("${local.monitoring}/alarms.yaml", { name = var.name }))
  objectives = { for row in local.rows.objectives : row.name => row }

  # The burn rate over a long and over a short window. These parts of composite alarms notify no one.
  windows = merge([for row in local.rows.burn_rates : {
    for window, seconds in row.windows : "${row.name}-${window}" => {
      means            = row.means
      reason           = row.reason
      metrics          = local.objectives[row.objective].metrics
      expression       = local.objectives[row.objective].bad
      comparison       = "GreaterThanThreshold"
      threshold        = row.burn * (100 - local.objectives[row.objective].percent)
      period_seconds   = seconds
      periods          = 1
      periods_to_alarm = 1
      missing          = "notBreaching"
      actions          = []
    }
  }]...)
  alarms = { for row in local.rows.alarms : row.name => merge(row, {
    expression = try(row.expression, "")
    actions    = [aws_sns_topic.alarms[row.severity].arn]
  }) }
}

resource "aws_cloudwatch_metric_alarm" "main" {
  for_each = merge(local.windows, local.alarms)

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.means} ${each.value.reason}"
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.periods_to_alarm
  treat_missing_data  = each.value.missing
  alarm_actions       = each.value.actions
  ok_actions          = each.value.actions

  dynamic "metric_query" {
    for_each = each.value.metrics

    content {
      id          = metric_query.key
      return_data = each.value.expression == ""

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        dimensions  = try(metric_query.value.dimensions, {})
        stat        = metric_query.value.statistic
        period      = each.value.period_seconds
      }
    }
  }

  dynamic "metric_query" {
    for_each = each.value.expression == "" ? [] : [each.value.expression]

    content {
      id          = "result"
      expression  = metric_query.value
      label       = each.key
      return_data = true
    }
  }
}

resource "aws_cloudwatch_composite_alarm" "main" {
  for_each = { for row in local.rows.burn_rates : row.name => row }

  alarm_name        = "${var.name}-${each.key}"
  alarm_description = "${each.value.means} ${each.value.reason}"
  alarm_rule        = join(" AND ", [for window in keys(each.value.windows) : "ALARM(\"${aws_cloudwatch_metric_alarm.main["${each.key}-${window}"].alarm_name}\")"])
  alarm_actions     = [aws_sns_topic.alarms[each.value.severity].arn]
  ok_actions        = [aws_sns_topic.alarms[each.value.severity].arn]
}

resource "aws_cloudwatch_dashboard" "main" {
  for_each = toset([for file in fileset("${local.monitoring}/dashboards", "*.json") : trimsuffix(file, ".json")])

  dashboard_name = "${var.name}-${each.value}"
  dashboard_body = templatefile("${local.monitoring}/dashboards/${each.value}.json", {
    name    = var.name
    region  = var.region
    account = data.aws_caller_identity.current.account_id
  })
}

# Logs Insights lists these in a folder with the deployment's name. A comment in each query names its log group.
resource "aws_cloudwatch_query_definition" "main" {
  for_each = { for file in fileset("${local.monitoring}/queries", "*.txt") : trimsuffix(file, ".txt") => file("${local.monitoring}/queries/${file}") }

  name            = "${var.name}/${each.key}"
  log_group_names = [aws_cloudwatch_log_group.pods[regex("(?m)^# group: (\\w+)$", each.value)[0]].name]
  query_string    = each.value
}
