# The AWS permissions of pods: one role per service account, which only that account can assume (EKS Pod Identity).

locals {
  # The service account of each role.
  pods = {
    clients-api        = { namespace = "clients", account = "clients-api" }
    fluent-bit         = { namespace = "telemetry", account = "fluent-bit" }
    collector          = { namespace = "telemetry", account = "collector" }
    container-insights = { namespace = "telemetry", account = "container-insights" }
    cluster-autoscaler = { namespace = "kube-system", account = "cluster-autoscaler" }
  }

  # The service itself has no permissions.
  policies = {
    fluent-bit         = data.aws_iam_policy_document.fluent_bit.json
    collector          = data.aws_iam_policy_document.collector.json
    container-insights = data.aws_iam_policy_document.container_insights.json
    cluster-autoscaler = data.aws_iam_policy_document.autoscaler.json
  }
}

resource "aws_iam_role" "pod" {
  for_each = local.pods

  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.pod_trust.json
}

locals {
  # Not the cluster's own attribute: a plan that changes the cluster would then show each role as changed, too.
  cluster_arn = "arn:${data.aws_partition.current.partition}:eks:${var.region}:${data.aws_caller_identity.current.account_id}:cluster/${var.name}"
}

data "aws_iam_policy_document" "pod_trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [local.cluster_arn]
    }
  }
}

resource "aws_iam_role_policy" "pod" {
  for_each = local.policies

  name   = each.key
  role   = aws_iam_role.pod[each.key].id
  policy = each.value
}

resource "aws_eks_pod_identity_association" "pod" {
  for_each = local.pods

  cluster_name    = aws_eks_cluster.main.name
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.pod[each.key].arn
}

# --- Policies

data "aws_iam_policy_document" "fluent_bit" {
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = [for kind in ["application", "dataplane", "host", "lines", "metrics"] : "${aws_cloudwatch_log_group.pods[kind].arn}:*"]
  }
}

data "aws_iam_policy_document" "collector" {
  statement {
    sid       = "Metrics"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.pods["telemetry"].arn}:*"]
  }

  # X-Ray's actions cannot be limited to resources.
  statement {
    sid       = "Traces"
    actions   = ["xray:PutTraceSegments"]
    resources = ["*"]
  }
}

data "aws_iam_policy_document" "container_insights" {
  statement {
    sid       = "Performance"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.pods["performance"].arn}:*"]
  }

  # The agent reads the volumes and tags of its node; a tag names the cluster.
  statement {
    sid       = "Nodes"
    actions   = ["ec2:DescribeVolumes", "ec2:DescribeTags"]
    resources = ["*"]
  }
}

data "aws_iam_policy_document" "autoscaler" {
  statement {
    sid = "Describe"
    actions = [
      "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingInstances",
      "autoscaling:DescribeLaunchConfigurations", "autoscaling:DescribeScalingActivities", "autoscaling:DescribeTags",
      "ec2:DescribeImages", "ec2:DescribeInstanceTypes", "ec2:DescribeLaunchTemplateVersions",
      "ec2:GetInstanceTypesFromInstanceRequirements",
    ]
    resources = ["*"] # these actions cannot be limited to resources
  }

  statement {
    sid       = "DescribeNodeGroups"
    actions   = ["eks:DescribeNodegroup"]
    resources = ["arn:${data.aws_partition.current.partition}:eks:${var.region}:${data.aws_caller_identity.current.account_id}:nodegroup/${var.name}/*"]
  }

  statement {
    sid       = "Scale"
    actions   = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
    resources = ["arn:${data.aws_partition.current.partition}:autoscaling:${var.region}:${data.aws_caller_identity.current.account_id}:autoScalingGroup:*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.name}"
      values   = ["owned"]
    }
  }
}
