# Rejected connections in both VPCs: the first thing to check when something cannot be reached.

resource "aws_flow_log" "refused" {
  for_each = { cluster = aws_vpc.cluster.id, database = aws_vpc.database.id }

  vpc_id          = each.value
  traffic_type    = "REJECT"
  log_destination = aws_cloudwatch_log_group.flow[each.key].arn
  iam_role_arn    = aws_iam_role.flow_logs.arn

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_cloudwatch_log_group" "flow" {
  #checkov:skip=CKV_AWS_338:the retention is a variable, a month by default
  for_each = toset(["cluster", "database"])

  name              = "/aws/vpc/${var.name}-${each.key}"
  log_group_class   = local.seldom_read
  retention_in_days = var.log_days
  kms_key_id        = aws_kms_key.main.arn
}

resource "aws_iam_role" "flow_logs" {
  name               = "${var.name}-flow-logs"
  assume_role_policy = data.aws_iam_policy_document.flow_logs_trust.json
}

data "aws_iam_policy_document" "flow_logs_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["vpc-flow-logs.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role_policy" "flow_logs" {
  name   = "write"
  role   = aws_iam_role.flow_logs.id
  policy = data.aws_iam_policy_document.flow_logs.json
}

data "aws_iam_policy_document" "flow_logs" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = [for group in aws_cloudwatch_log_group.flow : "${group.arn}:*"]
  }
}
