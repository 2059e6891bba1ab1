# A check of the public name from outside: DNS, the load balancer, TLS, a pod and its database, as callers use them. It
# costs $1.50 a month. A canary of CloudWatch Synthetics costs $0.0012 a run, which is $10 a month for one in 5 minutes.
# Such a check accepts any certificate, so the alarm certificate watches that.

resource "aws_route53_health_check" "public_name" {
  type              = "HTTPS"
  fqdn              = "${var.host}.${var.domain}"
  port              = 443
  resource_path     = "/readyz"
  request_interval  = 30
  failure_threshold = 3
  enable_sni        = true
  regions           = ["eu-west-1", "us-east-1", "us-west-2"] # Route 53 needs three

  tags = { Name = "${var.name}-public-name" }
}

# Route 53 has its metrics only in us-east-1, and an alarm, its topic and its suppressor have to be in one region. In any
# other region, the alarm below takes the place of the composite alarm unreachable of alarms.tf: it has a topic of its
# own, and it neither waits for the first deployment nor for database-lost.
provider "aws" {
  alias  = "us_east_1"
  region = "us-east-1"

  default_tags {
    tags = {
      Project   = var.name
      ManagedBy = "terraform"
    }
  }
}

locals {
  elsewhere = { for row in local.rows.alarms : row.name => row if try(row.region, var.region) != var.region }
}

resource "aws_sns_topic" "elsewhere" {
  #checkov:skip=CKV_AWS_26:a key in this region would cost more than the check; a message has nothing but the alarm's text
  for_each = local.elsewhere
  provider = aws.us_east_1

  name = "${var.name}-alarms-${each.key}"
}

resource "aws_sns_topic_subscription" "elsewhere" {
  for_each = var.alarm_email == "" ? {} : local.elsewhere
  provider = aws.us_east_1

  topic_arn = aws_sns_topic.elsewhere[each.key].arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

resource "aws_cloudwatch_metric_alarm" "elsewhere" {
  for_each = local.elsewhere
  provider = aws.us_east_1

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = "${each.value.means} ${each.value.reason}"
  namespace           = one(values(each.value.metrics)).namespace
  metric_name         = one(values(each.value.metrics)).name
  dimensions          = { for name, value in one(values(each.value.metrics)).dimensions : name => lookup(local.ids, value, value) }
  statistic           = one(values(each.value.metrics)).statistic
  period              = each.value.period_seconds
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.periods_to_alarm
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.elsewhere[each.key].arn]
  ok_actions          = [aws_sns_topic.elsewhere[each.key].arn]
}
