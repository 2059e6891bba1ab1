# The nodes: by default 2 to 5, in the private subnets.

resource "aws_eks_node_group" "main" {
  cluster_name           = aws_eks_cluster.main.name
  node_group_name_prefix = "main-" # a new instance type needs a new group, which is created before the old one is deleted
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = [for subnet in aws_subnet.private : subnet.id]
  instance_types         = [var.node_type]
  ami_type               = "AL2023_x86_64_STANDARD"

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
