# One variable moves the version of everything, and one chooses the processor.

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

run "nodes_addons_and_autoscaler_have_the_version_of_the_cluster" {
  variables {
    kubernetes_version = "1.36"
  }

  assert {
    condition     = aws_eks_cluster.main.version == "1.36" && aws_eks_node_group.main.version == "1.36" && output.kubernetes_version == "1.36"
    error_message = "The nodes have the version of the control plane."
  }

  assert {
    condition     = data.aws_ssm_parameter.node_release.name == "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023/x86_64/standard/recommended/release_version" && aws_eks_node_group.main.release_version == "1.35.4-20261120"
    error_message = "The nodes have AWS's newest release of the AMI for that version."
  }

  assert {
    condition     = alltrue([for name, addon in merge(aws_eks_addon.before_nodes, aws_eks_addon.on_nodes) : addon.addon_version == data.aws_eks_addon_version.main[name].version && data.aws_eks_addon_version.main[name].kubernetes_version == "1.36"])
    error_message = "Each add-on has AWS's default version for that version."
  }

  assert {
    condition     = output.autoscaler_version == "1.36.1"
    error_message = "The autoscaler has a release of that version."
  }

  assert {
    condition     = alltrue([for minor, release in local.autoscaler_versions : startswith(release, "${minor}.")])
    error_message = "A release of the autoscaler is of the minor version that it is for."
  }
}

run "a_version_without_an_autoscaler_is_refused" {
  command = plan

  variables {
    kubernetes_version = "1.99"
  }

  expect_failures = [var.kubernetes_version]
}

run "someone_hears_of_the_end_of_support_90_days_before" {
  assert {
    condition     = aws_scheduler_schedule.end_of_support.start_date == "2099-12-27T00:00:00Z" && aws_scheduler_schedule.end_of_support.schedule_expression == "rate(7 days)"
    error_message = "Messages start 90 days before 27 March 2100, and are repeated."
  }

  assert {
    condition     = aws_scheduler_schedule.end_of_support.target[0].arn == aws_sns_topic.alarms["ticket"].arn && strcontains(aws_scheduler_schedule.end_of_support.target[0].input, "supports until 27 March 2100")
    error_message = "They go to the topic for tickets, and have the day."
  }

  assert {
    condition     = toset(flatten([for one in data.aws_iam_policy_document.end_of_support.statement : tolist(one.actions)])) == toset(["kms:Decrypt", "kms:GenerateDataKey", "sns:Publish"])
    error_message = "The schedule may publish to the topic, which is encrypted."
  }
}

run "an_end_within_90_days_is_told_at_once" {
  command = plan

  override_data {
    target = data.aws_eks_cluster_versions.all
    values = { cluster_versions = [{ cluster_version = "1.35", version_status = "EXTENDED_SUPPORT", end_of_standard_support_date = "2026-01-01T00:00:00Z" }] }
  }

  assert {
    condition     = aws_scheduler_schedule.end_of_support.start_date == null
    error_message = "AWS refuses a start that is past."
  }

  expect_failures = [check.standard_support]
}

run "a_graviton_type_brings_its_ami" {
  override_data {
    target = data.aws_ec2_instance_type.node
    values = { supported_architectures = ["arm64"], memory_size = 4096, maximum_network_interfaces = 3, maximum_ipv4_addresses_per_interface = 6 }
  }

  variables {
    node_type = "t4g.medium"
  }

  assert {
    condition     = aws_eks_node_group.main.ami_type == "AL2023_ARM_64_STANDARD" && strcontains(data.aws_ssm_parameter.node_release.name, "/arm64/")
    error_message = "Nodes of Graviton have an AMI for it."
  }
}

run "other_types_have_an_ami_for_x86" {
  assert {
    condition     = aws_eks_node_group.main.ami_type == "AL2023_x86_64_STANDARD" && aws_eks_node_group.main.instance_types == tolist(["t3.medium"])
    error_message = "A t3.medium has an AMI for x86."
  }
}

run "a_node_without_room_for_its_pods_is_refused" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type.node
    values = { supported_architectures = ["x86_64"], memory_size = 8192, maximum_network_interfaces = 2, maximum_ipv4_addresses_per_interface = 4 }
  }

  expect_failures = [aws_eks_node_group.main]
}

run "a_node_without_memory_is_refused" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type.node
    values = { supported_architectures = ["x86_64"], memory_size = 512, maximum_network_interfaces = 3, maximum_ipv4_addresses_per_interface = 6 }
  }

  expect_failures = [aws_eks_node_group.main]
}
