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

  # What the rows and the dashboards cannot know.
  ids = {
    HEALTH_CHECK = aws_route53_health_check.public_name.id
    CERTIFICATE  = data.aws_acm_certificate.main.arn
  }

  functions = { Sum = "SUM", Maximum = "MAX" } # of Metrics Insights, by statistic

  # The burn rate over a long and over a short window. These parts of composite alarms notify no one.
  rates = merge([for row in local.rows.burn_rates : { for rate, of in row.rates : "${row.objective}-${rate}" => merge(of, {
    means     = row.means
    reason    = row.reason
    objective = local.objectives[row.objective]
  }) }]...)
  windows = merge([for name, rate in local.rates : {
    for window in ["long", "short"] : "${name}-${window}" => {
      means            = rate.means
      reason           = rate.reason
      metrics          = rate.objective.metrics
      expression       = window == "short" ? rate.objective.share : "IF(${rate.objective.requests} > ${local.rows.floor}, ${rate.objective.share}, 0)"
      band             = 0
      comparison       = "GreaterThanThreshold"
      threshold        = rate.burn * (100 - rate.objective.percent)
      period_seconds   = rate[window]
      periods          = 1
      periods_to_alarm = 1
      missing          = "notBreaching"
      actions          = []
    }
  }]...)

  # A row with a suppressor, or that waits for the first deployment, is a part of the composite alarm of its name.
  guarded  = { for row in local.rows.alarms : row.name => row if can(row.suppressor) || can(row.after) }
  measured = { for row in local.rows.alarms : contains(keys(local.guarded), row.name) ? "${row.name}-measured" : row.name => row }
  alarms = { for name, row in local.measured : name => merge(row, {
    expression = try(row.expression, "")
    band       = try(row.band, 0)
    actions    = name != row.name || row.severity == "part" ? [] : [aws_sns_topic.alarms[row.severity].arn]
  }) if try(row.region, var.region) == var.region }

  # Each composite alarm fires while all alarms of any of its groups fire.
  composites = merge(
    { for row in local.rows.burn_rates : row.name => merge(row, {
      rule = [for rate in keys(row.rates) : [for window in ["long", "short"] : "${row.objective}-${rate}-${window}"]]
    }) },
    {
      for name, row in local.guarded : name => merge(row, { rule = [compact(["${name}-measured", try(row.after, "")])] })
      if try(row.region, var.region) == var.region
    },
  )
  outage = [for row in local.rows.composites : row if row.name == "outage"][0]
}

resource "aws_cloudwatch_metric_alarm" "main" {
  for_each = merge(local.windows, local.alarms)

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.means} ${each.value.reason}"
  comparison_operator = each.value.band == 0 ? each.value.comparison : "LessThanLowerThreshold"
  threshold           = each.value.band == 0 ? each.value.threshold : null
  threshold_metric_id = each.value.band == 0 ? null : "band"
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.periods_to_alarm
  treat_missing_data  = each.value.missing
  alarm_actions       = each.value.actions
  ok_actions          = each.value.actions

  dynamic "metric_query" {
    for_each = { for id, metric in each.value.metrics : id => metric if !can(metric.over) }

    content {
      id          = metric_query.key
      return_data = each.value.expression == ""

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        dimensions  = { for name, value in try(metric_query.value.dimensions, {}) : name => name == "DBInstanceIdentifier" ? aws_db_instance.main.identifier : lookup(local.ids, value, value) }
        stat        = metric_query.value.statistic
        period      = each.value.period_seconds
      }
    }
  }

  # The statistic over all values of a dimension, by a query of Metrics Insights.
  dynamic "metric_query" {
    for_each = { for id, metric in each.value.metrics : id => metric if can(metric.over) }

    content {
      id          = metric_query.key
      expression  = "SELECT ${local.functions[metric_query.value.statistic]}(${metric_query.value.name}) FROM SCHEMA(\"${metric_query.value.namespace}\", ${metric_query.value.over})"
      period      = each.value.period_seconds
      return_data = each.value.expression == ""
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

  dynamic "metric_query" {
    for_each = each.value.band == 0 ? [] : [each.value.band]

    content {
      id          = "band"
      expression  = "ANOMALY_DETECTION_BAND(result, ${metric_query.value})"
      label       = "usual"
      return_data = true
    }
  }
}

# Notifies no one: it keeps other alarms silent. Outside us-east-1, where the alarm unreachable is, it cannot read that.
resource "aws_cloudwatch_composite_alarm" "outage" {
  alarm_name        = "${var.name}-outage"
  alarm_description = "${local.outage.means} ${local.outage.reason}"
  alarm_rule        = join(" OR ", [for name in flatten(local.outage.rule) : "ALARM(\"${aws_cloudwatch_metric_alarm.main[name].alarm_name}\")" if contains(keys(local.alarms), name)])
}

resource "aws_cloudwatch_composite_alarm" "main" {
  for_each = local.composites

  alarm_name        = "${var.name}-${each.key}"
  alarm_description = "${each.value.means} ${each.value.reason}"
  alarm_rule        = join(" OR ", [for group in each.value.rule : "(${join(" AND ", [for name in group : "ALARM(\"${aws_cloudwatch_metric_alarm.main[name].alarm_name}\")"])})"])
  alarm_actions     = [aws_sns_topic.alarms[each.value.severity].arn]
  ok_actions        = [aws_sns_topic.alarms[each.value.severity].arn]

  dynamic "actions_suppressor" {
    for_each = try([each.value.suppressor], [])

    content {
      alarm            = actions_suppressor.value == "outage" ? aws_cloudwatch_composite_alarm.outage.alarm_name : aws_cloudwatch_metric_alarm.main[actions_suppressor.value].alarm_name
      wait_period      = local.rows.suppression.wait_seconds
      extension_period = local.rows.suppression.extension_seconds
    }
  }
}

resource "aws_cloudwatch_dashboard" "main" {
  for_each = toset([for file in fileset("${local.monitoring}/dashboards", "*.json") : trimsuffix(file, ".json")])

  dashboard_name = "${var.name}-${each.value}"
  dashboard_body = replace(replace(replace(templatefile("${local.monitoring}/dashboards/${each.value}.json", {
    name    = var.name
    region  = var.region
    account = data.aws_caller_identity.current.account_id
  }), "HEALTH_CHECK", local.ids.HEALTH_CHECK), "CERTIFICATE", local.ids.CERTIFICATE), "/(\"DBInstanceIdentifier\",\\s*)\"[^\"]*\"/", "$1\"${aws_db_instance.main.identifier}\"")
}

# Logs Insights lists these in a folder with the deployment's name. A comment in each query names its log group.
resource "aws_cloudwatch_query_definition" "main" {
  for_each = { for file in fileset("${local.monitoring}/queries", "*.txt") : trimsuffix(file, ".txt") => file("${local.monitoring}/queries/${file}") }

  name            = "${var.name}/${each.key}"
  log_group_names = [aws_cloudwatch_log_group.pods[regex("(?m)^# group: (\\w+)$", each.value)[0]].name]
  query_string    = each.value
}
