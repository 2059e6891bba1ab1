# A shell on a node, for emergencies, by Session Manager: no open port, no key, and CloudTrail records who started it. A
# node can be reached, but nobody may do so without the policy below. docs/deploying.md has the procedure.

# What the agent on the node needs for sessions. AWS's own policy for this would also let it read each parameter.
resource "aws_iam_role_policy" "node_sessions" {
  name   = "sessions"
  role   = aws_iam_role.node.id
  policy = data.aws_iam_policy_document.node_sessions.json
}

data "aws_iam_policy_document" "node_sessions" {
  #checkov:skip=CKV_AWS_111:these actions cannot be limited to resources
  #checkov:skip=CKV_AWS_356:as above
  statement {
    actions = [
      "ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"]
  }
}

# Attached to no role. An operator who needs a node gets it for as long as that takes.
resource "aws_iam_policy" "node_access" {
  name        = "${var.name}-node-access"
  description = "A shell on the nodes of the cluster ${var.name}, for emergencies"
  policy      = data.aws_iam_policy_document.node_access.json
}

data "aws_iam_policy_document" "node_access" {
  statement {
    sid       = "Nodes"
    actions   = ["ssm:StartSession"]
    resources = ["arn:${data.aws_partition.current.partition}:ec2:${var.region}:${data.aws_caller_identity.current.account_id}:instance/*"]

    condition {
      test     = "StringEquals"
      variable = "ssm:resourceTag/Name"
      values   = ["${var.name}-node"] # the tag of the launch template
    }
  }

  statement {
    sid       = "Shell"
    actions   = ["ssm:StartSession"]
    resources = ["arn:${data.aws_partition.current.partition}:ssm:${var.region}:${data.aws_caller_identity.current.account_id}:document/SSM-SessionManagerRunShell"]
  }

  statement {
    sid       = "OwnSessions"
    actions   = ["ssm:ResumeSession", "ssm:TerminateSession"]
    resources = ["arn:${data.aws_partition.current.partition}:ssm:*:*:session/&{aws:userid}-*"]
  }
}
