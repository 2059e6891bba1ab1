# The values that later steps of a deployment read. None is secret: AWS keeps the database's password.

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

output "autoscaler_version" {
  description = "Release of the cluster autoscaler for the cluster's version."
  value       = local.autoscaler_versions[var.kubernetes_version]
}

output "database_identifier" {
  description = "Identifier of the RDS instance."
  value       = aws_db_instance.main.identifier
}

output "cluster_range" {
  description = "Network of the cluster: its load balancers, nodes and pods."
  value       = var.cluster_range
}

output "database_range" {
  description = "Network of the database, which pods connect to."
  value       = var.database_range
}

output "hostname" {
  description = "Public host name of the service."
  value       = "${var.host}.${var.domain}"
}

output "zone_id" {
  description = "ID of the hosted zone of the host name."
  value       = data.aws_route53_zone.main.zone_id
}

output "certificate_arn" {
  description = "ARN of the load balancer's certificate."
  value       = data.aws_acm_certificate.main.arn
}

output "log_groups" {
  description = "Names of the log groups of pods, by kind."
  value       = { for kind, group in aws_cloudwatch_log_group.pods : kind => group.name }
}

output "balancer_logs" {
  description = "Name of the bucket for the load balancer's access logs."
  value       = aws_s3_bucket.balancer_logs.id
}

output "alarm_topics" {
  description = "ARNs of the SNS topics for alarms, by severity: page and ticket."
  value       = { for severity, topic in aws_sns_topic.alarms : severity => topic.arn }
}
