# The log groups of pods. Those of Container Insights have its usual names. What the service's pods write has two groups of
# its own, without the metadata of pods: its lines, and its metrics, because CloudWatch only reads metrics at the root of
# an event. So do the metrics of Fluent Bit and the collector.
#
# Nothing here prevents that a group is destroyed. Fluent Bit then drops at once what it would send there. But Terraform's
# prevent_destroy takes no variable, so `make destroy` could never succeed. records-dropped.md has AWS's own protection.

locals {
  # Half the price, for groups that are read after an incident at most. They have no metrics, filters or subscriptions,
  # and are read only by Logs Insights, all of which this class requires. It cannot be changed later: another class
  # replaces the group, with its logs. https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CloudWatch_Logs_Log_Classes.html
  seldom_read = "INFREQUENT_ACCESS"
}

resource "aws_cloudwatch_log_group" "pods" {
  #checkov:skip=CKV_AWS_338:the retention is a variable, a month by default
  for_each = {
    application = "/aws/containerinsights/${var.name}/application"
    dataplane   = "/aws/containerinsights/${var.name}/dataplane"
    host        = "/aws/containerinsights/${var.name}/host"
    performance = "/aws/containerinsights/${var.name}/performance"
    lines       = "/${var.name}/clients-api/lines"
    metrics     = "/${var.name}/clients-api/metrics"
    telemetry   = "/${var.name}/telemetry/metrics"
  }

  name              = each.value
  log_group_class   = contains(["dataplane", "host"], each.key) ? local.seldom_read : "STANDARD"
  retention_in_days = var.log_days
  kms_key_id        = aws_kms_key.main.arn
}
