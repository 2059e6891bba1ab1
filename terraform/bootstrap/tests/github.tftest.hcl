# The jobs of one repository get access, each role for its purpose.

mock_provider "aws" {
  source = "../tests"
}

variables {
  bucket     = "made-up"
  repository = "olimac@1/clients@2"
}

run "only_the_environment_production_can_apply" {
  assert {
    condition = {
      for one in data.aws_iam_policy_document.github_trust["apply"].statement[0].condition : one.variable => one.values
      } == {
      "token.actions.githubusercontent.com:aud" = tolist(["sts.amazonaws.com"])
      "token.actions.githubusercontent.com:sub" = tolist(["repo:olimac@1/clients@2:environment:production"])
    }
    error_message = "Only jobs of the environment production, which has reviewers, may apply changes."
  }
}

run "pull_requests_and_main_can_plan" {
  assert {
    condition = toset(flatten([
      for one in data.aws_iam_policy_document.github_trust["plan"].statement[0].condition : one.values
      if endswith(one.variable, ":sub")
    ])) == toset(["repo:olimac@1/clients@2:pull_request", "repo:olimac@1/clients@2:ref:refs/heads/main"])
    error_message = "Only pull requests and main may plan."
  }

  assert {
    condition     = endswith(aws_iam_role_policy_attachment.github["plan"].policy_arn, ":policy/ReadOnlyAccess")
    error_message = "A plan may only read."
  }

  assert {
    condition     = toset(flatten([for one in data.aws_iam_policy_document.plan.statement : tolist(one.actions) if one.effect == "Deny"])) == toset(["secretsmanager:GetSecretValue", "ssm:GetParameter*"])
    error_message = "A plan may not read secrets."
  }

  assert {
    condition     = one([for one in data.aws_iam_policy_document.plan.statement : one.not_resources if one.sid == "NoParameters"]) == toset(["arn:aws:ssm:*::parameter/aws/service/*"])
    error_message = "A plan may read AWS's own parameters, which have the releases of AMIs."
  }
}

run "other_environments_are_named" {
  variables {
    environments = ["production", "staging"]
  }

  assert {
    condition = toset(flatten([
      for one in data.aws_iam_policy_document.github_trust["apply"].statement[0].condition : one.values
      if endswith(one.variable, ":sub")
    ])) == toset(["repo:olimac@1/clients@2:environment:production", "repo:olimac@1/clients@2:environment:staging"])
    error_message = "Each environment may apply changes."
  }
}

run "a_pattern_is_refused_as_environment" {
  command = plan

  variables {
    environments = ["*"]
  }

  expect_failures = [var.environments]
}

run "trust_conditions_have_no_patterns" {
  assert {
    condition     = alltrue(flatten([for trust in values(data.aws_iam_policy_document.github_trust) : [for one in trust.statement[0].condition : one.test == "StringEquals"]]))
    error_message = "Every condition compares for equality."
  }
}

run "the_state_is_private_and_has_versions" {
  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled" && aws_s3_bucket_public_access_block.state.restrict_public_buckets
    error_message = "Older versions of the state can be restored, and none is public."
  }

  assert {
    condition     = { for one in data.aws_iam_policy_document.state.statement[1].condition : one.test => one.values } == { Null = tolist(["false"]), StringNotEquals = tolist(["aws:kms"]) }
    error_message = "A request may not replace the bucket's encryption."
  }
}

run "a_pattern_is_refused_as_repository" {
  command = plan

  variables {
    repository = "olimac/*"
  }

  expect_failures = [var.repository]
}
