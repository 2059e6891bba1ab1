# The EKS add-ons, in the default version that AWS has for the cluster's Kubernetes version.

locals {
  addons_before_nodes = {
    vpc-cni                = jsonencode({ enableNetworkPolicy = "true" }) # without it, network policies have no effect
    kube-proxy             = null
    eks-pod-identity-agent = null
  }
  addons_on_nodes = toset(["coredns", "metrics-server"])
}

# Without a version, an add-on keeps the one that it was created with, also after an upgrade of the cluster.
data "aws_eks_addon_version" "main" {
  for_each = setunion(keys(local.addons_before_nodes), local.addons_on_nodes)

  addon_name         = each.value
  kubernetes_version = var.kubernetes_version
}

resource "aws_eks_addon" "before_nodes" {
  for_each = local.addons_before_nodes

  cluster_name                = aws_eks_cluster.main.name
  addon_name                  = each.key
  addon_version               = data.aws_eks_addon_version.main[each.key].version
  configuration_values        = each.value
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}

# These add-ons run on nodes, so they are not healthy before there is a node.
resource "aws_eks_addon" "on_nodes" {
  for_each = local.addons_on_nodes

  cluster_name                = aws_eks_cluster.main.name
  addon_name                  = each.value
  addon_version               = data.aws_eks_addon_version.main[each.value].version
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.main]
}
