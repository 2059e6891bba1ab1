# What the later steps of a deployment read. Nothing of it is secret: the database's password is AWS's to keep.

output "name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.main.name
}

output "region" {
  description = "AWS region."
  value       = var.region
}

output "kubernetes_version" {
  description = "Minor version of the cluster."
  value       = aws_eks_cluster.main.version
}

output "database_identifier" {
  description = "Of the RDS instance."
  value       = aws_db_instance.main.identifier
}

output "cluster_range" {
  description = "Network of the cluster: its balancers, nodes and pods."
  value       = var.cluster_range
}

output "database_range" {
  description = "Network that pods reach the database in."
  value       = var.database_range
}

output "hostname" {
  description = "The service's public name."
  value       = "${var.host}.${var.domain}"
}

output "zone_id" {
  description = "Of the hosted zone that the name goes into."
  value       = data.aws_route53_zone.main.zone_id
}

output "certificate_arn" {
  description = "Of the certificate that the balancer shows."
  value       = data.aws_acm_certificate.main.arn
}

output "log_groups" {
  description = "Where pods' logs go, by kind."
  value       = { for kind, group in aws_cloudwatch_log_group.pods : kind => group.name }
}

output "alarm_topics" {
  description = "ARNs of the topics that alarms are sent to, by severity: page and ticket."
  value       = { for severity, topic in aws_sns_topic.alarms : severity => topic.arn }
}
