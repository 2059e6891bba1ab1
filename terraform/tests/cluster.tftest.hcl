# The cluster: logs, nodes and permissions.

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

run "the_control_plane_is_logged_and_private" {
  assert {
    condition     = aws_eks_cluster.main.enabled_cluster_log_types == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"])
    error_message = "All five kinds of control plane logs are on."
  }

  assert {
    condition     = aws_cloudwatch_log_group.control_plane.name == "/aws/eks/olimac/cluster" && aws_cloudwatch_log_group.control_plane.retention_in_days == 30
    error_message = "The logs go to the log group with that name, which keeps them for 30 days."
  }

  assert {
    condition     = aws_eks_cluster.main.access_config[0].authentication_mode == "API" && !aws_eks_cluster.main.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "Access entries list the administrators."
  }

  assert {
    condition     = aws_eks_cluster.main.upgrade_policy[0].support_type == "STANDARD"
    error_message = "The cluster uses only standard support."
  }

  assert {
    condition     = !aws_eks_cluster.main.vpc_config[0].endpoint_public_access
    error_message = "Without allowed networks, the API is private."
  }
}

run "only_allowed_networks_can_reach_the_api" {
  variables {
    api_ranges = ["203.0.113.0/24"]
  }

  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_public_access && aws_eks_cluster.main.vpc_config[0].public_access_cidrs == toset(["203.0.113.0/24"])
    error_message = "Only the allowed networks can reach the API."
  }
}

run "there_are_two_to_five_private_nodes" {
  assert {
    condition     = aws_eks_node_group.main.scaling_config[0].min_size == 2 && aws_eks_node_group.main.scaling_config[0].max_size == 5
    error_message = "There are 2 to 5 nodes."
  }

  assert {
    condition     = aws_eks_node_group.main.subnet_ids == toset([for subnet in aws_subnet.private : subnet.id])
    error_message = "Nodes are in the private subnets."
  }

  assert {
    condition     = aws_launch_template.node.metadata_options[0].http_tokens == "required" && aws_launch_template.node.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Pods cannot get the node's permissions: IMDSv2, one hop."
  }
}

run "fewer_than_two_nodes_are_refused" {
  command = plan

  variables {
    nodes = { least = 1, most = 5 }
  }

  expect_failures = [var.nodes]
}

run "no_administrators_are_refused" {
  command = plan

  variables {
    admins = []
  }

  expect_failures = [var.admins]
}

run "each_role_belongs_to_one_service_account" {
  assert {
    condition = { for name, bound in aws_eks_pod_identity_association.pod : name => "${bound.namespace}/${bound.service_account}" } == {
      clients-api        = "clients/clients-api"
      cluster-autoscaler = "kube-system/cluster-autoscaler"
      collector          = "telemetry/collector"
      container-insights = "telemetry/container-insights"
      fluent-bit         = "telemetry/fluent-bit"
    }
    error_message = "There are five roles, each for one service account."
  }

  assert {
    condition     = !contains(keys(aws_iam_role_policy.pod), "clients-api")
    error_message = "The service itself has no permissions in AWS."
  }
}

run "telemetry_has_few_permissions" {
  assert {
    condition     = toset(flatten([for one in data.aws_iam_policy_document.collector.statement : tolist(one.actions)])) == toset(["logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTraceSegments"])
    error_message = "The collector may send traces and its own metrics."
  }

  assert {
    condition     = toset(flatten([for one in data.aws_iam_policy_document.container_insights.statement : tolist(one.actions)])) == toset(["ec2:DescribeTags", "ec2:DescribeVolumes", "logs:CreateLogStream", "logs:PutLogEvents"])
    error_message = "Container Insights may send metrics, and read the volumes and tags of its node."
  }

  assert {
    condition     = aws_cloudwatch_log_group.pods["telemetry"].name == "/olimac/telemetry/metrics"
    error_message = "The metrics of Fluent Bit and the collector have their own log group."
  }
}

run "the_cluster_has_its_addons" {
  assert {
    condition     = toset(concat(keys(aws_eks_addon.before_nodes), keys(aws_eks_addon.on_nodes))) == toset(["coredns", "eks-pod-identity-agent", "kube-proxy", "metrics-server", "vpc-cni"])
    error_message = "The add-ons provide the network, DNS, pod identities, and metrics for autoscaling."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "Network policies are enforced."
  }
}
