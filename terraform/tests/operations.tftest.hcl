# What a team needs around the cluster: the cost, the balancer's logs, a way to a node.

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

run "costs_beyond_the_budget_are_a_ticket" {
  assert {
    condition     = aws_budgets_budget.account[0].limit_amount == "450" && aws_budgets_budget.account[0].time_unit == "MONTHLY"
    error_message = "The budget is an amount per month."
  }

  assert {
    condition     = toset([for one in aws_budgets_budget.account[0].notification : one.notification_type]) == toset(["ACTUAL", "FORECASTED"]) && alltrue([for one in aws_budgets_budget.account[0].notification : one.subscriber_sns_topic_arns == toset([aws_sns_topic.alarms["ticket"].arn])])
    error_message = "The topic for tickets gets a message for a forecast, and when it has come true."
  }

  assert {
    condition     = contains(flatten([for one in data.aws_iam_policy_document.ticket.statement : [for who in one.principals : tolist(who.identifiers)]]), "budgets.amazonaws.com") && contains(flatten([for one in data.aws_iam_policy_document.key.statement : [for who in one.principals : tolist(who.identifiers)]]), "budgets.amazonaws.com")
    error_message = "AWS Budgets may publish to the topic, and use its key."
  }

  assert {
    condition     = contains(flatten([for one in data.aws_iam_policy_document.ticket.statement : [for who in one.principals : tolist(who.identifiers)]]), "cloudwatch.amazonaws.com")
    error_message = "The topic's policy also lets alarms publish."
  }

  # The same deployment, to save an apply.
  assert {
    condition     = output.balancer_logs == aws_s3_bucket.balancer_logs.id && aws_s3_bucket.balancer_logs.bucket == "olimac-balancer-logs-123456789012"
    error_message = "The bucket for the balancer's logs has a name that no other account has."
  }

  assert {
    condition     = data.aws_iam_policy_document.balancer_logs.statement[0].actions == toset(["s3:PutObject"]) && one(data.aws_iam_policy_document.balancer_logs.statement[0].principals).identifiers == toset(["arn:aws:iam::127311923021:root"])
    error_message = "AWS's account for the balancers of this region may write to it."
  }

  assert {
    condition     = one([for rule in aws_s3_bucket_server_side_encryption_configuration.balancer_logs.rule : rule.apply_server_side_encryption_by_default[0].sse_algorithm]) == "AES256"
    error_message = "It has S3's own key, because a classic balancer uses no other."
  }

  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.balancer_logs.rule[0].expiration[0].days == 7 && aws_s3_bucket_public_access_block.balancer_logs.restrict_public_buckets
    error_message = "Logs are kept for a week, and are not public."
  }

  assert {
    condition     = one(data.aws_iam_policy_document.node_access.statement[0].condition).values == tolist(["olimac-node"]) && endswith(one(data.aws_iam_policy_document.node_access.statement[0].resources), ":instance/*")
    error_message = "The policy for emergencies is for nodes of this cluster only."
  }

  assert {
    condition     = !anytrue([for action in data.aws_iam_policy_document.node_sessions.statement[0].actions : startswith(action, "ssm:Get")])
    error_message = "A node reads no parameters."
  }
}

run "a_newer_region_writes_the_logs_by_a_service" {
  command = plan

  variables {
    region = "eu-central-2"
    zones  = ["eu-central-2a", "eu-central-2b"]
  }

  assert {
    condition     = one(data.aws_iam_policy_document.balancer_logs.statement[0].principals).identifiers == toset(["logdelivery.elasticloadbalancing.amazonaws.com"])
    error_message = "In regions without such an account, a service writes the logs."
  }
}

run "an_account_may_have_its_budget_already" {
  command = plan

  variables {
    budget_dollars = 0
  }

  assert {
    condition     = length(aws_budgets_budget.account) == 0
    error_message = "Without an amount there is no budget."
  }
}
