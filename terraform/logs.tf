# What pods say: Container Insights' groups by their usual names, and metrics in groups of their own, where CloudWatch
# finds them at the root of each event: the service's, and those of telemetry itself.

resource "aws_cloudwatch_log_group" "pods" {
  #checkov:skip=CKV_AWS_338:how long logs are worth their price is a variable, a month by default
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
