# Which Kubernetes version the cluster has, and until when AWS supports it. docs/deploying.md has the procedure.

data "aws_eks_cluster_versions" "all" {
  include_all = true # also those without support
}

locals {
  # The newest release of the autoscaler for each minor version: it simulates the scheduler, so the two must be the same.
  # https://github.com/kubernetes/autoscaler/releases
  autoscaler_versions = {
    "1.34" = "1.34.5"
    "1.35" = "1.35.2"
    "1.36" = "1.36.1"
  }

  # The provider's own filter by version does nothing in version 5.100.
  chosen_version = one([for version in data.aws_eks_cluster_versions.all.cluster_versions : version if version.cluster_version == var.kubernetes_version])
  support_ends   = local.chosen_version.end_of_standard_support_date
  support_notice = timeadd(local.support_ends, "-${90 * 24}h")
}

# A warning in each plan, not an error: a cluster whose support has ended must still be deployable.
check "standard_support" {
  assert {
    condition     = local.chosen_version.version_status == "STANDARD_SUPPORT"
    error_message = "AWS's standard support of Kubernetes ${var.kubernetes_version} has ended. EKS creates no such cluster with standard support, and upgrades an existing one on its own."
  }
}

# Sends a message each week, from 90 days before AWS's standard support ends until the version has changed. It needs no
# deployment: AWS itself sends it. Without it, AWS would upgrade the control plane on its own, and leave the rest behind.
resource "aws_scheduler_schedule" "end_of_support" {
  #checkov:skip=CKV_AWS_297:it has nothing but the text of the message
  name                = "${var.name}-end-of-support"
  description         = "Kubernetes ${var.kubernetes_version} is supported until ${formatdate("D MMMM YYYY", local.support_ends)}"
  schedule_expression = "rate(7 days)"
  start_date          = timecmp(local.support_notice, plantimestamp()) > 0 ? local.support_notice : null # AWS refuses past ones

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_sns_topic.alarms["ticket"].arn
    role_arn = aws_iam_role.end_of_support.arn
    input    = "The cluster ${var.name} has Kubernetes ${var.kubernetes_version}, which AWS supports until ${formatdate("D MMMM YYYY", local.support_ends)}. After that day, AWS upgrades the control plane on its own. Upgrade before: see 'Upgrading Kubernetes' in docs/deploying.md."
  }
}

resource "aws_iam_role" "end_of_support" {
  name               = "${var.name}-end-of-support"
  assume_role_policy = data.aws_iam_policy_document.end_of_support_trust.json
}

data "aws_iam_policy_document" "end_of_support_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role_policy" "end_of_support" {
  name   = "publish"
  role   = aws_iam_role.end_of_support.id
  policy = data.aws_iam_policy_document.end_of_support.json
}

data "aws_iam_policy_document" "end_of_support" {
  statement {
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms["ticket"].arn]
  }

  # The topic is encrypted.
  statement {
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.main.arn]
  }
}
