# The nodes: by default 2 to 5, in the private subnets. Their processor and AMI follow from var.node_type.

data "aws_ec2_instance_type" "node" {
  instance_type = var.node_type
}

locals {
  is_graviton = contains(data.aws_ec2_instance_type.node.supported_architectures, "arm64")

  # Each pod has an address of one of the node's network interfaces, except those of the node's own network.
  # https://docs.aws.amazon.com/eks/latest/userguide/choosing-instance-type.html
  node_pods = data.aws_ec2_instance_type.node.maximum_network_interfaces * (data.aws_ec2_instance_type.node.maximum_ipv4_addresses_per_interface - 1) + 2

  # What each of the two nodes has to run: 5 pods of DaemonSets, and half of the 12 others that there may be during a
  # roll-out. These request 1 GiB of memory, and the node itself keeps nearly half a GiB.
  node_least = { pods = 11, memory_mib = 2048 }
}

# The newest release of the AMI. When AWS publishes one, the next plan replaces the nodes, one by one.
data "aws_ssm_parameter" "node_release" {
  name = "/aws/service/eks/optimized-ami/${var.kubernetes_version}/amazon-linux-2023/${local.is_graviton ? "arm64" : "x86_64"}/standard/recommended/release_version"
}

resource "aws_eks_node_group" "main" {
  cluster_name           = aws_eks_cluster.main.name
  node_group_name_prefix = "main-" # a new instance type needs a new group, which is created before the old one is deleted
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = [for subnet in aws_subnet.private : subnet.id]
  instance_types         = [var.node_type]
  ami_type               = local.is_graviton ? "AL2023_ARM_64_STANDARD" : "AL2023_x86_64_STANDARD"
  version                = aws_eks_cluster.main.version # after the control plane: nodes must not be newer
  release_version        = nonsensitive(data.aws_ssm_parameter.node_release.value)

  scaling_config {
    min_size     = var.nodes.least
    max_size     = var.nodes.most
    desired_size = var.nodes.least
  }

  update_config {
    max_unavailable = 1
  }

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [scaling_config[0].desired_size] # the autoscaler changes it

    precondition {
      condition     = local.node_pods >= local.node_least.pods && data.aws_ec2_instance_type.node.memory_size >= local.node_least.memory_mib
      error_message = "A ${var.node_type} is too small: it can run ${local.node_pods} pods in ${data.aws_ec2_instance_type.node.memory_size} MiB, and a node needs room for ${local.node_least.pods} pods and ${local.node_least.memory_mib} MiB."
    }
  }

  # The network add-on is created first, because a node without it never becomes ready.
  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.before_nodes]
}

resource "aws_launch_template" "node" {
  name_prefix = "${var.name}-node-"

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # pods are one hop further away, so they cannot get the node's permissions
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = 20
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-node", Project = var.name }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/${each.value}"
}
