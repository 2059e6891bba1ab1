# Who is told, and of what: the alarms and dashboards are data, in ops/cloudwatch/.

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = aws_kms_key.main.id
}

resource "aws_sns_topic_subscription" "alarms" {
  count = var.alarm_email == "" ? 0 : 1

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

locals {
  monitoring = "${path.module}/../ops/cloudwatch"
  alarms     = { for alarm in yamldecode(file("${local.monitoring}/alarms.yaml")) : alarm.name => alarm }
}

resource "aws_cloudwatch_metric_alarm" "main" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.reason
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = each.value.period_seconds
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.periods_to_alarm
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_dashboard" "main" {
  for_each = toset([for file in fileset("${local.monitoring}/dashboards", "*.json") : trimsuffix(file, ".json")])

  dashboard_name = "${var.name}-${each.value}"
  dashboard_body = templatefile("${local.monitoring}/dashboards/${each.value}.json", { region = var.region, name = var.name })
}
