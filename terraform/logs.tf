# The logs of pods, in log groups with Container Insights' usual names. The metrics of the service, and those of Fluent
# Bit and the collector, have their own groups, because CloudWatch only reads metrics at the root of an event.

resource "aws_cloudwatch_log_group" "pods" {
  #checkov:skip=CKV_AWS_338:the retention is a variable, a month by default
  for_each = {
    application = "/aws/containerinsights/${var.name}/application"
    dataplane   = "/aws/containerinsights/${var.name}/dataplane"
    host        = "/aws/containerinsights/${var.name}/host"
    performance = "/aws/containerinsights/${var.name}/performance"
    metrics     = "/${var.name}/clients-api/metrics"
    telemetry   = "/${var.name}/telemetry/metrics"
  }

  name              = each.value
  retention_in_days = var.log_days
  kms_key_id        = aws_kms_key.main.arn
}
