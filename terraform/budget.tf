# What the whole account costs in a month. AWS can tell deployments apart only by tags that were activated for billing, and
# a budget on any other tag would always be at 0.

resource "aws_budgets_budget" "account" {
  count = var.budget_dollars > 0 ? 1 : 0

  name         = "${var.name}-account"
  budget_type  = "COST"
  limit_amount = tostring(var.budget_dollars)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  # In time to act, and when it is certain.
  dynamic "notification" {
    for_each = toset(["FORECASTED", "ACTUAL"])

    content {
      notification_type         = notification.value
      comparison_operator       = "GREATER_THAN"
      threshold                 = 100
      threshold_type            = "PERCENTAGE"
      subscriber_sns_topic_arns = [aws_sns_topic.alarms["ticket"].arn]
    }
  }

  depends_on = [aws_sns_topic_policy.ticket]
}

# Without a policy, only the account itself and its alarms may publish. A policy replaces that, so it names all three.
resource "aws_sns_topic_policy" "ticket" {
  arn    = aws_sns_topic.alarms["ticket"].arn
  policy = data.aws_iam_policy_document.ticket.json
}

data "aws_iam_policy_document" "ticket" {
  statement {
    sid       = "Account"
    actions   = ["sns:Publish", "sns:Subscribe", "sns:GetTopicAttributes", "sns:SetTopicAttributes", "sns:ListSubscriptionsByTopic"]
    resources = [aws_sns_topic.alarms["ticket"].arn]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }

  statement {
    sid       = "AlarmsAndBudgets"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms["ticket"].arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}
