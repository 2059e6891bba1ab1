# The cluster: its logs, its nodes, who may do what.

mock_provider "aws" {
  source = "./tests"
}

variables {
  admins = ["arn:aws:iam::123456789012:role/deploy"]
}

run "control_plane" {
  assert {
    condition     = aws_eks_cluster.main.enabled_cluster_log_types == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"])
    error_message = "All five kinds of the control plane's logs are on."
  }

  assert {
    condition     = aws_cloudwatch_log_group.control_plane.name == "/aws/eks/olimac/cluster" && aws_cloudwatch_log_group.control_plane.retention_in_days == 30
    error_message = "They go to the group of that name, which keeps them for a while."
  }

  assert {
    condition     = aws_eks_cluster.main.access_config[0].authentication_mode == "API" && !aws_eks_cluster.main.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "Who may is written down in access entries."
  }

  assert {
    condition     = aws_eks_cluster.main.upgrade_policy[0].support_type == "STANDARD"
    error_message = "The cluster is never left to the extended support."
  }

  assert {
    condition     = !aws_eks_cluster.main.vpc_config[0].endpoint_public_access
    error_message = "Without networks that may reach it, the API is not public."
  }
}

run "the_api_is_open_to_named_networks_alone" {
  variables {
    api_ranges = ["203.0.113.0/24"]
  }

  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_public_access && aws_eks_cluster.main.vpc_config[0].public_access_cidrs == toset(["203.0.113.0/24"])
    error_message = "Named networks may reach the API, and no others."
  }
}

run "two_to_five_private_nodes" {
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
    error_message = "Pods cannot take the node's rights: IMDSv2, one hop."
  }
}

run "fewer_than_two_nodes_are_refused" {
  command = plan

  variables {
    nodes = { least = 1, most = 5 }
  }

  expect_failures = [var.nodes]
}

run "nobody_to_administer_it_is_refused" {
  command = plan

  variables {
    admins = []
  }

  expect_failures = [var.admins]
}

run "each_role_of_a_pod_is_one_service_accounts" {
  assert {
    condition = { for name, bound in aws_eks_pod_identity_association.pod : name => "${bound.namespace}/${bound.service_account}" } == {
      clients-api        = "clients/clients-api"
      cluster-autoscaler = "kube-system/cluster-autoscaler"
      collector          = "telemetry/collector"
      container-insights = "telemetry/container-insights"
      fluent-bit         = "telemetry/fluent-bit"
    }
    error_message = "Five roles, each for one account."
  }

  assert {
    condition     = !contains(keys(aws_iam_role_policy.pod), "clients-api")
    error_message = "The service itself may do nothing in AWS."
  }
}

run "what_ships_telemetry_may_do_little" {
  assert {
    condition     = toset(flatten([for one in data.aws_iam_policy_document.collector.statement : tolist(one.actions)])) == toset(["logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTraceSegments"])
    error_message = "The collector sends traces, and counters of its own."
  }

  assert {
    condition     = toset(flatten([for one in data.aws_iam_policy_document.container_insights.statement : tolist(one.actions)])) == toset(["ec2:DescribeTags", "ec2:DescribeVolumes", "logs:CreateLogStream", "logs:PutLogEvents"])
    error_message = "Container Insights sends figures, and looks at its node's volumes and tags."
  }

  assert {
    condition     = aws_cloudwatch_log_group.pods["telemetry"].name == "/olimac/telemetry/metrics"
    error_message = "Counters of telemetry have a group of their own."
  }
}

run "what_it_needs_of_addons" {
  assert {
    condition     = toset(concat(keys(aws_eks_addon.before_nodes), keys(aws_eks_addon.on_nodes))) == toset(["coredns", "eks-pod-identity-agent", "kube-proxy", "metrics-server", "vpc-cni"])
    error_message = "The network, names, identities of pods, and metrics to scale by."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "Network policies are enforced."
  }
}
