# Whose jobs get in: one repository's, each role for what it is for.

mock_provider "aws" {
  source = "../tests"
}

variables {
  bucket     = "made-up"
  repository = "olimac@1/clients@2"
}

run "the_role_that_changes_things_is_the_environments" {
  assert {
    condition = {
      for one in data.aws_iam_policy_document.github_trust["apply"].statement[0].condition : one.variable => one.values
      } == {
      "token.actions.githubusercontent.com:aud" = tolist(["sts.amazonaws.com"])
      "token.actions.githubusercontent.com:sub" = tolist(["repo:olimac@1/clients@2:environment:production"])
    }
    error_message = "Only jobs of the environment production, which has reviewers, may change things."
  }
}

run "the_role_that_looks_is_for_plans" {
  assert {
    condition = toset(flatten([
      for one in data.aws_iam_policy_document.github_trust["plan"].statement[0].condition : one.values
      if endswith(one.variable, ":sub")
    ])) == toset(["repo:olimac@1/clients@2:pull_request", "repo:olimac@1/clients@2:ref:refs/heads/main"])
    error_message = "Pull requests and main may look."
  }

  assert {
    condition     = endswith(aws_iam_role_policy_attachment.github["plan"].policy_arn, ":policy/ReadOnlyAccess")
    error_message = "Who makes a plan may only read."
  }

  assert {
    condition     = one([for one in data.aws_iam_policy_document.plan.statement : one.actions if one.effect == "Deny"]) == toset(["secretsmanager:GetSecretValue", "ssm:GetParameter*"])
    error_message = "And no secrets."
  }
}

run "conditions_are_equalities" {
  assert {
    condition     = alltrue(flatten([for trust in values(data.aws_iam_policy_document.github_trust) : [for one in trust.statement[0].condition : one.test == "StringEquals"]]))
    error_message = "No subject is matched by a pattern."
  }
}

run "the_state_is_private_encrypted_and_has_versions" {
  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled" && aws_s3_bucket_public_access_block.state.restrict_public_buckets
    error_message = "An older state can be had again, and nobody else sees any."
  }
}

run "a_pattern_is_no_repository" {
  command = plan

  variables {
    repository = "olimac/*"
  }

  expect_failures = [var.repository]
}
