output "bucket" {
  description = "Name of the bucket for the state, for `terraform init -backend-config=bucket=…`."
  value       = aws_s3_bucket.state.id
}

output "roles" {
  description = "ARNs of the roles that GitHub's jobs assume, by purpose: plan and apply."
  value       = { for purpose, role in aws_iam_role.github : purpose => role.arn }
}
